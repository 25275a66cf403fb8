"""Ctrl-C and SIGTERM: the measurement ends at once, and what it started is ended in order.

A second signal changes nothing, so that impatience leaves no process behind. While something is half started the
signal waits until it can be ended properly.
"""

import contextlib
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Not an Exception: nothing but the end of the program may catch it."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number = number


class _State:
    holds = 0
    waiting = None
    raised = False


def install():
    for number in SIGNALS:
        signal.signal(number, _handle)


def _handle(number, _frame):
    if _State.raised:
        return
    if _State.holds:
        _State.waiting = number
        return
    _State.raised = True
    raise Interrupted(number)


@contextlib.contextmanager
def held():
    """Within it a signal waits. Only around what has a time limit of its own."""
    _State.holds += 1
    try:
        yield
    finally:
        _State.holds -= 1
        number, _State.waiting = _State.waiting, None
    if number is not None:
        _handle(number, None)
