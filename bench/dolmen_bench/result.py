"""The result of a case, as the JSON that others may rely on; keys may be added, not changed."""

from . import rounds


def of(case, bench, sides, measured, machine):
    found = rounds.ratios(measured, case.figure)
    on_epoll = rounds.ratios(measured, case.figure, rounds.OURS_ON_EPOLL)
    return {
        "case": case.name,
        "work": case.work,
        "measure": case.measure,
        "figure": case.figure,
        "unit": case.unit,
        "sides": [_side(side, measured[side.name]) for side in sides],
        **_ours(found, case.goals),
        "epoll": _ours(on_epoll, case.goals_on_epoll or case.goals) if on_epoll else None,
        "access_log_costs": rounds.log_costs(measured, case.figure),
        "rounds": bench.rounds,
        "seconds": bench.seconds,
        "access_log": bench.writes_logs(),
        "notes": list(bench.notes),
        "machine": machine,
    }


def _ours(found, goals):
    better = found["better"] if found else {"ratio": None, "ratio_min": None, "ratio_max": None}
    return {
        **better,
        "ratio_to": found["peers"] if found else {},
        "goals": {peer: {"ratio": goal, "met": _met(found, peer, goal)} for peer, goal in goals.items()},
    }


def _side(side, each):
    return {
        "name": side.name,
        "version": side.version(),
        "settings": side.settings,
        "figures": {key: _rounded(value) for key, value in rounds.medians(each).items()},
        "system_calls_per_request": getattr(side, "system_calls", None),
        "rounds": [{key: _rounded(value) for key, value in figures.items()} for figures in each],
    }


def _met(found, peer, goal):
    """Whether the median ratio reaches the goal; None where there is no such peer in this run."""
    spread = found and (found["better"] if peer == "better" else found["peers"].get(peer))
    return spread["ratio"] <= goal if spread else None


def _rounded(value):
    return float(f"{value:.5g}")
