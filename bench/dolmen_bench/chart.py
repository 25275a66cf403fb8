"""The chart: for each case a bar for each side, the better peer being 1. Shorter is better."""

from xml.sax.saxutils import escape

from . import rounds
from .markdown import NAMES

WIDTH, LEFT, RIGHT, TOP = 820, 210, 90, 64
BAR, GAP, GROUP_GAP = 16, 4, 26
COLOURS = {"dolmen": "#b4532a", "dolmen-epoll": "#d3936f", "dolmen-without-log": "#d3936f", "floor": "#e3e6e8"}
PEER_COLOUR = "#9aa3ab"
# A peer far behind would shrink all other bars; its bar is cut and its number says the rest.
RATIO_MAX = 2.5


def draw(results):
    bars, y, groups = [], TOP, []
    for result in results:
        groups.append((y, result))
        for side in result["sides"]:
            bars.append((y, side, result, _relative(result, side)))
            y += BAR + GAP
        y += GROUP_GAP
    scale = (WIDTH - LEFT - RIGHT) / min(RATIO_MAX, max(1.2, *(bar[3] for bar in bars)))
    # What is drawn last lies on top: the words.
    body = [_bar(*bar, scale) for bar in bars]
    body += [_goals(top, result, scale) for top, result in groups]
    body += [_group(*group) for group in groups] + [_label(*bar, scale) for bar in bars]
    return _frame(y, _line(scale, y - GROUP_GAP) + "".join(body))


def _relative(result, side):
    """To the better peer's median; to the best of all when there is no peer."""
    figure = result["figure"]
    peers = [other for other in result["sides"] if rounds.is_peer(other["name"])] or result["sides"]
    return side["figures"][figure] / min(peer["figures"][figure] for peer in peers)


def _bar(y, side, _result, relative, scale):
    colour = COLOURS.get(side["name"], PEER_COLOUR)
    length = min(relative, RATIO_MAX) * scale
    return f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>\n'


def _label(y, side, result, relative, scale):
    x = LEFT + min(relative, RATIO_MAX) * scale + 6
    value = f"{side['figures'][result['figure']]:.4g} {result['unit']}"
    return (
        f'<text x="{x:.1f}" y="{y + 12}">{escape(value)}</text>'
        f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(NAMES[side["name"]])}</text>\n'
    )


def _group(y, result):
    title = f"{result['case']}: {result['measure']}"
    ratio = "" if result["ratio"] is None else f", {result['ratio']:.2f} × the better peer"
    return f'<text x="{LEFT}" y="{y - 6}" class="case">{escape(title + ratio)}</text>\n'


def _goals(y, result, scale):
    """Marks on our bars where the goals are: to the better peer, or to a peer by name."""
    marks = ""
    to = {"better": 1.0, **{side["name"]: _relative(result, side) for side in result["sides"]}}
    ours = {rounds.OURS: result, rounds.OURS_ON_EPOLL: result["epoll"]}
    for place, side in enumerate(result["sides"]):
        goals = (ours.get(side["name"]) or {"goals": {}})["goals"]
        for peer, goal in goals.items():
            if peer in to:
                x = LEFT + min(goal["ratio"] * to[peer], RATIO_MAX) * scale
                top = y + place * (BAR + GAP) - 1
                title = f"goal: {goal['ratio']} × {NAMES[peer]}"
                marks += f'<path d="M{x:.1f} {top} v{BAR + 2}" class="goal"><title>{title}</title></path>\n'
    return marks


def _line(scale, bottom):
    x = LEFT + scale
    return f'<path d="M{x:.1f} {TOP - 22} V{bottom}" stroke="#5b636a" stroke-dasharray="4 3"/>\n'


def _frame(height, body):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img">\n'
        "<title>Dolmen and its peers, the better peer being 1, shorter is better</title>\n"
        "<style>text{font:12px sans-serif;fill:#23282c;paint-order:stroke;stroke:#fff;stroke-width:3px}"
        ".case,.title{font-weight:bold}"
        ".goal{stroke:#23282c;stroke-width:2}</style>\n"
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="{LEFT}" y="22" class="title">Dashed: the better peer. Marks: our goals. Shorter is better.'
        f"</text>\n{body}</svg>\n"
    )
