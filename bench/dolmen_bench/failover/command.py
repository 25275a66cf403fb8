"""bench/run failover [--json]: from the words on the command line to the table."""

import argparse
import json
import statistics
import sys

from .. import binary, install, machine, packages
from ..trouble import Mistake, Trouble
from . import faults, machines
from .dolmen import Dolmen

FINE, FAILED, MISTAKE = 0, 1, 2
TRIES = 5
# Dolmen restarts in place what fails again within ten seconds of a failover: that would be another measurement.
REST_S = {"dolmen": 11, "patroni": 1}


def main(words):
    arguments = _parser().parse_args(words)
    try:
        machines.need_root_and_a_namespace()
        results = _measure(arguments)
    except Mistake as mistake:
        print(f"bench: {mistake}", file=sys.stderr)
        return MISTAKE
    except Trouble as trouble:
        print(f"bench: {trouble}", file=sys.stderr)
        return FAILED
    print(json.dumps(results, indent=2) if arguments.json else table(results))
    return FINE


def _parser():
    parser = argparse.ArgumentParser(
        prog="bench/run failover",
        description="How long a client cannot write after a fault: Dolmen, and Patroni at its tightest setting.")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--tries", type=int, default=TRIES, help=f"of each fault (default {TRIES})")
    parser.add_argument("--faults", default=",".join(faults.ALL), help="some of them (default all)")
    parser.add_argument("--sides", default="dolmen,patroni", help="default dolmen,patroni")
    parser.add_argument("--lease", help="of Dolmen, for example 2s (default 3s)")
    parser.add_argument("--dolmen", metavar="PATH", help="measure this binary instead of building one")
    parser.add_argument("--block", type=int, default=98, help="loopback addresses 127.0.BLOCK.*")
    return parser


def _sides(arguments):
    wanted = arguments.sides.split(",")
    if "patroni" in wanted:
        packages.DEBIAN.update({"patroni": "patroni", "etcd": "etcd-server", "patronictl": "patroni"})
        packages.require(["patroni", "patronictl", "etcd"])
        from .patroni import Patroni  # pylint: disable=import-outside-toplevel
    sides = []
    if "dolmen" in wanted:
        sides.append(Dolmen(binary.dolmen(arguments.dolmen), arguments.block, arguments.lease))
    if "patroni" in wanted:
        sides.append(Patroni(arguments.block))
    return sides


def _measure(arguments):
    chosen = arguments.faults.split(",")
    if unknown := set(chosen) - set(faults.ALL):
        raise Mistake(f"there is no fault {', '.join(sorted(unknown))}; there are {', '.join(faults.ALL)}")
    packages.DEBIAN.update({"nft": "nftables", "ip": "iproute2"})
    install.require(["nft", "ip"])
    try:
        from .writer import Writer  # pylint: disable=import-outside-toplevel
    except ImportError:
        raise Mistake("the writer needs psycopg2\nhint: apt-get install python3-psycopg2") from None
    sides = _sides(arguments)
    described = machine.describe()
    begun = []
    try:
        for side in sides:
            _say(f"starting {side.name}")
            begun.append(side)
            side.up()
        network = machines.Network([one for side in sides for one in side.machines.values()])
        measured = {side.name: {fault: [] for fault in chosen} for side in sides}
        for fault in chosen:
            for number in range(faults.ALL[fault].tries or arguments.tries):
                for side in (side for side in sides if side.name in faults.ALL[fault].sides):
                    figures = faults.once(side, network, fault, Writer, REST_S[side.name])
                    measured[side.name][fault].append(figures)
                    _say(f"{side.name} {fault} {number + 1}: {figures}")
    finally:
        for side in begun:
            side.down()
    about = [{"name": side.name, "version": side.version, "settings": side.settings} for side in sides]
    return {"case": "failover", "tries": arguments.tries, "lease": arguments.lease or "3s", "sides": about,
            "faults": measured, "machine": described}


def _say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def table(results):
    """For people, and for docs/failover-figures.md."""
    names = [side["name"] for side in results["sides"]]
    head = "| fault | goal |" + "".join(f" {name}: median, worst; rejoin; lost |" for name in names)
    lines = [head, "|---|---|" + "---|" * len(names)]
    for name in results["faults"][names[0]]:
        fault = faults.ALL[name]
        cells = [_cell(fault, results["faults"][side][name]) for side in names]
        lines.append(f"| {fault.what} | {_goal(fault, results['lease'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _goal(fault, lease):
    if fault.halts:
        return f"stop {fault.goals[0]} s, return {fault.goals[1]} s"
    return f"{fault.goals[-1 if lease == '2s' else 0]} s"


def _cell(fault, tries):
    if not tries:
        return "–"
    lost = sum(one["lost"] for one in tries)
    if fault.halts:
        return f"stop {_spread(tries, 'stops_s')}, return {_spread(tries, 'returns_s')}; –; {lost}"
    rejoins = [one["rejoin_s"] for one in tries if one["rejoin_s"] is not None]
    rejoin = f"{statistics.median(rejoins):.1f} s" if rejoins else "–"
    return f"{_spread(tries, 'outage_s')}; {rejoin}; {lost}"


def _spread(tries, figure):
    seen = [one[figure] for one in tries]
    return f"{statistics.median(seen):.2f}, {max(seen):.2f} s"
