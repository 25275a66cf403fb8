"""Rounds and ratios. The sides take turns within each round, so that what else the machine does meets all alike."""

import statistics

OURS, OURS_ON_EPOLL, OURS_WITHOUT_LOG, FLOOR = "dolmen", "dolmen-epoll", "dolmen-without-log", "floor"


def is_peer(name):
    """Whether it is one that we compare with: neither ours nor the floor, which serves nobody."""
    return name not in (OURS, OURS_ON_EPOLL, OURS_WITHOUT_LOG, FLOOR)


def in_turns(sides, rounds, measure, say):
    """measure(side, number) gives a dictionary of figures. The order turns around with every round.

    Returns for each side's name the list of its figures, one per round.
    """
    measured = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            figures = measure(side, number)
            measured[side.name].append(figures)
            say(f"round {number + 1} of {rounds}, {side.name}: {_short(figures)}")
    return measured


def medians(list_of_figures):
    return {key: statistics.median(figures[key] for figures in list_of_figures) for key in list_of_figures[0]}


def ratios(measured, figure, name=OURS):
    """Ours to the better peer (the smaller, figure by figure), one for each round; then to each peer alone."""
    peers = [peer for peer in measured if is_peer(peer)]
    if name not in measured or not peers:
        return None
    ours = [figures[figure] for figures in measured[name]]
    theirs = {name: [figures[figure] for figures in measured[name]] for name in peers}
    better = [min(of_round) for of_round in zip(*theirs.values())]
    return {
        "better": _spread(ours, better),
        "peers": {name: _spread(ours, values) for name, values in theirs.items()},
    }


def log_costs(measured, figure):
    """What the access log adds to ours, one for each round; None where that was not measured."""
    if OURS not in measured or OURS_WITHOUT_LOG not in measured:
        return None
    pairs = zip(measured[OURS], measured[OURS_WITHOUT_LOG])
    each = [on[figure] - off[figure] for on, off in pairs]
    return {"median": statistics.median(each), "min": min(each), "max": max(each)}


def _spread(ours, theirs):
    each = [mine / other for mine, other in zip(ours, theirs)]
    return {"ratio": statistics.median(each), "ratio_min": min(each), "ratio_max": max(each)}


def _short(figures):
    return ", ".join(f"{key} {value:.4g}" for key, value in list(figures.items())[:3])
