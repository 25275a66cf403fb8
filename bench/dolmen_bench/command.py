"""bench/run CASE [--json]: from the words on the command line to the printed result."""

import argparse
import contextlib
import json
import os
import sys

from . import binary, cases, chart, interrupts, machine, markdown, result
from .bench import Bench, prepare
from .place import BLOCKS, Place
from .trouble import Mistake, Trouble

SIDES = ("dolmen", "haproxy", "nginx", "floor")
ROUNDS, ROUNDS_MIN = 5, 5
SECONDS = 5
# A machine with nothing to do is below this.
QUIET_LOAD = 0.7
FINE, FAILED, MISTAKE = 0, 1, 2


def main(words):
    arguments = _parser().parse_args(words)
    interrupts.install()
    try:
        return _measure(arguments)
    except Mistake as mistake:
        return _end(mistake, MISTAKE)
    except Trouble as trouble:
        return _end(_whole(trouble), FAILED)
    except OSError as error:
        # Most often a process that was measured has ended, and its entry in /proc is gone.
        return _end(f"{type(error).__name__}: {error}\nhint: did a proxy end while it was measured?", FAILED)
    except interrupts.Interrupted as interrupted:
        return _end(f"ended by {interrupted}; nothing was left running", 128 + interrupted.number)


def _end(message, code):
    print(f"bench: {message}", file=sys.stderr)
    return code


def _whole(trouble):
    """With what was wrong before it: an end that fails after a start that failed must not hide that."""
    before = trouble.__context__
    return f"{_whole(before)}\nand then: {trouble}" if isinstance(before, Trouble) else str(trouble)


def _parser():
    names = [case.name for case in cases.ALL]
    parser = argparse.ArgumentParser(
        prog="bench/run", description="Measures Dolmen beside its peers, in turns, on this machine.",
        epilog="Exit codes: 0 fine, 1 failed, 2 the user's mistake. bench/README.md says what each case does.",
    )
    parser.add_argument("case", choices=[*names, "all"], help="`all` also writes docs/benchmarks.md and .svg")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--rounds", type=_count, default=ROUNDS, help=f"turns of each side (default {ROUNDS})")
    parser.add_argument("--seconds", type=_count, default=SECONDS, help=f"of each load (default {SECONDS})")
    parser.add_argument("--log", choices=["on", "off"], default="on", help="access logs of all sides (default on)")
    parser.add_argument("--sides", type=_sides, default=list(SIDES), help=f"default {','.join(SIDES)}")
    parser.add_argument("--io", choices=["both", "io_uring", "epoll"], default="both",
                        help="what Dolmen reads through (default both, one after the other)")
    parser.add_argument("--dolmen", metavar="PATH", help="measure this binary instead of building one")
    parser.add_argument("--block", type=_block, metavar="127.0.N", help="loopback addresses (default: a free block)")
    parser.add_argument("--saved", metavar="FILE", nargs="+", default=[],
                        help="results printed by --json before, whose cases need not be measured again")
    parser.add_argument("--docs", metavar="FOLDER", default=os.path.join(binary.ROOT, "docs"),
                        help="where `all` writes (default docs)")
    return parser


def _count(text):
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("must be from 1 to 1000")
    return number


def _sides(text):
    names = text.split(",")
    if unknown := set(names) - set(SIDES):
        raise argparse.ArgumentTypeError(f"knows no {', '.join(sorted(unknown))}; it can be {', '.join(SIDES)}")
    return [name for name in SIDES if name in names]


def _block(text):
    number = text.removeprefix("127.0.")
    if not number.isdigit() or int(number) not in BLOCKS:
        raise argparse.ArgumentTypeError(f"is 127.0.N with N from {BLOCKS[0]} to {BLOCKS[-1]}")
    return int(number)


def _measure(arguments):
    saved = {result["case"]: result for path in arguments.saved for result in _saved(path)}
    chosen = [case for case in cases.ALL if arguments.case in (case.name, "all") and case.name not in saved]
    if saved and not chosen:
        _publish(arguments, [saved[case.name] for case in cases.ALL if case.name in saved])
        return FINE
    dolmen = prepare(arguments.sides, chosen, arguments.dolmen)
    described = machine.describe()
    load_core, proxy_core = machine.cores()
    described["file_limit"] = machine.raise_file_limit()
    # Everything that is started from here on inherits the core of the load; proxies get their own.
    os.sched_setaffinity(0, {load_core})
    with contextlib.ExitStack() as stack:
        first = "epoll" if arguments.io == "epoll" else "io_uring"
        place = stack.enter_context(Place(load_core, proxy_core, arguments.block, first))
        bench = Bench(
            place, lambda io: stack.enter_context(Place(load_core, proxy_core, None, io)), arguments.io == "both",
            arguments.rounds, arguments.seconds, arguments.log == "on", arguments.sides, dolmen,
        )
        bench.notes += _doubts(arguments.rounds, described["load_before"])
        for case in chosen:
            bench.say(f"{case.name}: {case.work}")
            sides, measured = case.run(bench)
            saved[case.name] = result.of(case, bench, sides, measured, described)
    _publish(arguments, [saved[case.name] for case in cases.ALL if case.name in saved])
    return FINE


def _saved(path):
    """What `bench/run CASE --json` or `bench/run all --json` has printed before."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        return found if isinstance(found, list) else [found]
    except (OSError, ValueError) as error:
        raise Mistake(f"{path} is no result of this harness: {error}") from None


def _doubts(rounds, load_before):
    """Why a reader should not trust what follows."""
    if rounds < ROUNDS_MIN:
        yield f"fewer than {ROUNDS_MIN} rounds: a trial, not a result"
    if load_before > QUIET_LOAD:
        yield f"the machine was busy before the start (load average {load_before:.1f}): a trial, not a result"


def _publish(arguments, results):
    if arguments.case == "all":
        _write(os.path.join(arguments.docs, "benchmarks.svg"), chart.draw(results))
        _write(os.path.join(arguments.docs, "benchmarks.md"), markdown.page(results))
    if arguments.json:
        print(json.dumps(results if arguments.case == "all" else results[0], indent=2, ensure_ascii=False))
    else:
        print(markdown.summary(results))


def _write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
