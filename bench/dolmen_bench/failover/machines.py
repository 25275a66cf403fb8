"""Machines on one computer: each a control group of version 2, so that all of it can be killed, frozen and cut off at once.

A cut is by rules of nftables on both ends' control groups, in a network namespace of our own: neither FIN nor RST leaves.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import time

from ..trouble import Mistake, Trouble

GONE_S = 20
DEBIAN_PYTHON = "/usr/bin/python3"


def need_root_and_a_namespace():
    """Becomes the same program in a network and mount namespace of its own."""
    if os.environ.get("DOLMEN_BENCH_ALONE"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    if os.geteuid() != 0:
        raise Mistake("failover is measured as root: it makes a network namespace and control groups")
    os.environ["DOLMEN_BENCH_ALONE"] = "1"
    os.execvp("unshare", ["unshare", "-n", "-m", _python(), *sys.argv])


def _python():
    """Debian's has Debian's psycopg2; another one may be first on the path."""
    if importlib.util.find_spec("psycopg2") is None and os.access(DEBIAN_PYTHON, os.X_OK):
        return DEBIAN_PYTHON
    return sys.executable


def _hierarchy():
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, path, kind = line.split(" ")[:3]
            if kind == "cgroup2" and path.startswith("/sys/fs/cgroup"):
                return path
    raise Mistake("there are no control groups of version 2 below /sys/fs/cgroup")


class Machine:
    def __init__(self, name, address):
        self.name, self.address = name, address
        self.group = os.path.join(_hierarchy(), f"dolmen-bench-{os.getpid()}-{name}")
        os.mkdir(self.group)
        self.children = []

    def start(self, words, log, **more):
        """A process that is in the group before it does anything."""
        shell = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', self.group]
        with open(log, "ab") as out:
            child = subprocess.Popen(shell + words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, **more)
        self.children.append(child)
        return child

    def pids(self):
        with open(os.path.join(self.group, "cgroup.procs"), encoding="utf-8") as file:
            return [int(line) for line in file]

    def select(self, wanted):
        """The processes whose command line is wanted."""
        found = []
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().decode(errors="replace").replace("\0", " ")
            except OSError:
                continue
            if words and wanted(words):
                found.append(pid)
        return found

    def kill(self):
        with open(os.path.join(self.group, "cgroup.kill"), "w", encoding="utf-8") as file:
            file.write("1")
        until("the end of a machine", GONE_S, lambda: not self.pids())
        self.reap()

    def reap(self):
        self.children = [child for child in self.children if child.poll() is None]

    def freeze(self):
        before = None
        while (now := self.pids()) != before:
            send(now, signal.SIGSTOP)
            before = now

    def thaw(self):
        send(self.pids(), signal.SIGCONT)

    def remove(self):
        self.kill()
        for child in self.children:
            child.wait()
        until("the end of a control group", GONE_S, lambda: _removed(self.group))


def _removed(group):
    try:
        os.rmdir(group)
    except OSError:
        return False
    return True


def send(pids, number):
    if not pids:
        raise Trouble("there is no process to send a signal to")
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def until(what, within_s, condition, pace_s=0.02):
    end = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise Trouble(f"waited {within_s} s in vain for {what}")
        time.sleep(pace_s)
    return value


class Network:
    """Who hears whom. `machines` may be cut off one by one."""

    def __init__(self, machines):
        self.machines = machines
        script = ("table inet machines {\n chain marks { type filter hook output priority 0; }\n"
                  " chain cuts { type filter hook input priority 0; }\n}\n")
        for mark, machine in enumerate(machines, 1):
            script += f'add rule inet machines marks {_of(machine)} meta mark set {mark}\n'
        _nft(script)

    def cut_off(self, machine):
        script = ""
        mark = self.machines.index(machine) + 1
        for other, of in enumerate(self.machines, 1):
            if other == mark:
                continue
            for source, to in ((mark, of), (other, machine)):
                head = f"add rule inet machines cuts meta mark {source}"
                script += f"{head} {_of(to)} counter drop\n{head} ip daddr {to.address} counter drop\n"
        _nft(script)

    def heal(self):
        _nft("flush chain inet machines cuts\n")


def _of(machine):
    return f'socket cgroupv2 level 1 "{os.path.relpath(machine.group, "/sys/fs/cgroup")}"'


def _nft(script):
    done = subprocess.run(["nft", "-f", "-"], input=script, text=True, capture_output=True, check=False)
    if done.returncode:
        raise Trouble(f"nft: {done.stderr}")
