"""Starting and ending programs. What is started here is ended here, by process id, never by name."""

import os
import signal
import socket
import subprocess
import time

from . import interrupts, packages
from .trouble import Trouble

READY_S = 10
END_S = 5
OUTPUT_BYTES_SHOWN = 2000

# All that were started, so that none is missed when a signal comes between a start and its first use.
_started = []


class Program:
    """A program in the foreground, pinned to one core, its output in a file."""

    def __init__(self, words, core, folder, name, environment=None):
        self.name, self.log = name, os.path.join(folder, f"{name}.out")
        self.errors = os.path.join(folder, f"{name}.err")
        words = [packages.find("taskset"), "-c", str(core), *words]
        environment = {**os.environ, **(environment or {})}
        with open(self.log, "wb") as output, open(self.errors, "wb") as errors, interrupts.held():
            # A session of its own, so that Ctrl-C reaches the harness first and ends are in order.
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, cwd=folder, env=environment,
                start_new_session=True,
            )
            remember(self)

    @property
    def pid(self):
        return self.process.pid

    def await_listening(self, address):
        """Until it takes connections at (host, port)."""
        deadline = time.monotonic() + READY_S
        while not listens(address):
            if self.process.poll() is not None:
                raise Trouble(f"{self.name} ended with {self.process.returncode}: {self.said()}")
            if time.monotonic() > deadline:
                raise Trouble(f"{self.name} does not listen on {address[0]}:{address[1]} after {READY_S} s")
            time.sleep(0.02)

    def await_child(self):
        """Until it has a process of its own: nginx listens before its worker is there."""
        deadline = time.monotonic() + READY_S
        while not children(self.pid):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Trouble(f"{self.name} started no worker: {self.said()}")
            time.sleep(0.02)

    def said(self):
        with open(self.errors, encoding="utf-8", errors="replace") as file:
            return file.read(OUTPUT_BYTES_SHOWN).strip() or "it said nothing"

    def end(self):
        """Asks it to end, then kills it. A second call does nothing."""
        with interrupts.held():
            self._end()

    def _end(self):
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            left = [self.pid, *children(self.pid)]
            for pid in left:
                kill(pid)
            self.process.wait(END_S)


def remember(started):
    """Something with an end() that changes nothing the second time."""
    _started.append(started)


def end_all():
    """Ends what is still there, the latest first."""
    while _started:
        _started.pop().end()


def listens(address):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) == 0


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def children(pid):
    """The processes that a process started itself."""
    found = set()
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found.update(int(child) for child in file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return sorted(found)


def parent(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def pin(pid, core):
    """Moves a process that somebody else started, with all its threads, to one core."""
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), {core})


def run(words, within_s, **options):
    """Runs a program to its end and returns what it printed; anything but success is trouble."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=within_s, start_new_session=True, **options
        )
    except subprocess.TimeoutExpired:
        raise Trouble(f"{words[0]} took longer than {within_s:.0f} s") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-OUTPUT_BYTES_SHOWN:]
        raise Trouble(f"{' '.join(words)} ended with {done.returncode}:\n{said}")
    return done.stdout
