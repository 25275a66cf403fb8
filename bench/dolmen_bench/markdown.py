"""The tables that people read."""

from . import rounds

NAMES = {"dolmen": "Dolmen", "dolmen-epoll": "Dolmen on epoll",
         "dolmen-without-log": "Dolmen without access log", "floor": "floor (bytes passed on unread)",
         "haproxy": "HAProxy", "nginx": "nginx", "haproxy-nginx": "HAProxy → nginx",
         "better": "the better peer"}
# Of all figures, those that the table of a case shows, as far as it has them.
COLUMNS = {
    "cpu_us_per_request": "CPU µs/request", "user_us_per_request": "user", "system_us_per_request": "system",
    "requests_per_s": "requests/s", "core_share": "share of its core", "p50_us": "p50 µs", "p99_us": "p99 µs",
    "p99_9_us": "p99.9 µs", "resident_mb": "resident MB", "before_mb": "before MB", "pss_mb": "PSS MB",
    "kb_per_connection": "kB/connection",
}


def summary(results):
    """One row for each case."""
    rows = [["case", "measure", "through", "Dolmen", "peers", "ratio to the better (min–max)", "goal"]]
    for result in results:
        rows.append(_row(result, rounds.OURS, result))
        if result["epoll"]:
            rows.append(_row(result, rounds.OURS_ON_EPOLL, result["epoll"]))
    return _table(rows) + "".join(f"\n{_sentence(note)}\n" for note in _notes(results))


def page(results):
    """docs/benchmarks.md."""
    machine = results[0]["machine"]
    parts = [
        "# Benchmarks\n",
        "Written by `bench/run all`; `bench/README.md` says what each case does and how to read it. Ratios are ours"
        " to the better peer, medians over rounds in which all sides take turns; below 1 is better.\n",
        "![Each side's figure, the better peer being 1](benchmarks.svg)\n",
        summary(results) + "\n",
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}, Linux {machine['kernel']}, load average before {machine['load_before']:.2f}; "
        f"{results[0]['rounds']} rounds of {results[0]['seconds']} s.\n",
    ]
    return "\n".join(parts + [_detail(result) for result in results])


def _row(result, name, compared):
    ours = [side for side in result["sides"] if side["name"] == name]
    figures = [_figure(result, side) for side in ours] or ["–"]
    through = [side["settings"]["io"] for side in ours] or ["–"]
    peers = [f"{NAMES[side['name']]} {_figure(result, side)}" for side in result["sides"]
             if rounds.is_peer(side["name"])]
    return [result["case"], f"{result['measure']}, {result['unit']}", *through, *figures, ", ".join(peers) or "–",
            _ratio(compared), "; ".join(_goal(compared, peer, goal) for peer, goal in compared["goals"].items())]


def _figure(result, side):
    return _number(side["figures"][result["figure"]])


def _ratio(spread):
    if spread["ratio"] is None:
        return "–"
    return f"**{spread['ratio']:.2f}** ({spread['ratio_min']:.2f}–{spread['ratio_max']:.2f})"


def _goal(result, peer, goal):
    met = {True: "met", False: "missed", None: "not measured"}[goal["met"]]
    reached = result["ratio_to"].get(peer)
    reached = f", is {reached['ratio']:.2f}" if reached else ""
    return f"≤ {goal['ratio']:.2f} × {NAMES[peer]}{reached}: {met}"


def _detail(result):
    keys = [key for key in COLUMNS if key in result["sides"][0]["figures"]]
    rows = [["", *(COLUMNS[key] for key in keys)]]
    for side in result["sides"]:
        name = f"{NAMES[side['name']]} ({side['version']})"
        rows.append([name, *(_number(side["figures"][key]) for key in keys)])
    settings = "".join(f"- {NAMES[side['name']]}: {_settings(side['settings'])}\n" for side in result["sides"])
    calls = "".join(
        f"- {NAMES[side['name']]}: {_calls(side['system_calls_per_request'])}\n"
        for side in result["sides"] if side["system_calls_per_request"]
    )
    calls = f"\nSystem calls of a request:\n\n{calls}" if calls else ""
    return f"## {result['case']}\n\n{_sentence(result['work'])}\n\n{_table(rows)}\n{_log(result)}{settings}{calls}"


def _log(result):
    costs = result["access_log_costs"]
    if not costs:
        return ""
    return (f"The access log costs Dolmen {costs['median']:.2f} {result['unit']} of a request "
            f"(from {costs['min']:.2f} to {costs['max']:.2f} over the rounds).\n\n")


def _calls(by_name):
    each = sorted(by_name.items(), key=lambda item: -item[1])
    return f"{sum(by_name.values()):.2f} (" + ", ".join(f"{name} {count:g}" for name, count in each) + ")"


def _sentence(text):
    return text[0].upper() + text[1:] + "."


def _settings(settings):
    def text(key, value):
        if isinstance(value, dict):
            return f"{NAMES.get(key, key)} ({_settings(value)})"
        return key.replace("_", " ") + (f" {value}" if value is not True else "")
    return "; ".join(text(key, value) for key, value in settings.items())


def _notes(results):
    return dict.fromkeys(note for result in results for note in result["notes"])


def _number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines) + "\n"
