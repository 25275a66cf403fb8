"""Dolmen: a site of its own in a folder of its own, brought up as any user would, on the core of the proxy.

The site is started on one core, and Dolmen opens one listener and one thread for each core that it may use; so
it serves with one thread as the others do, and no setting is needed for it.
"""

import json
import os
import shutil
import time
import urllib.request

from .. import interrupts, packages, processes
from ..trouble import Trouble

UP_WITHIN_S = 60
STOP_WITHIN_S = 60
LOG_WITHIN_S = 3
ASKED_FOR_LOG = "/healthz?bench-looks-for-this-line"

# What a section of a site file needs so that its server's access log is on, as HAProxy and nginx write theirs, or off.
ACCESS_LOG = {True: 'access-log = "combined"', False: 'access-log = "off"'}


class Dolmen:
    programs = ()

    def __init__(self, place, binary, site, roles, settings, name):
        """site: the text of the site file; roles: whose processes are counted."""
        self.place, self.binary, self.site, self.roles, self.name = place, binary, site, roles, name
        self.address = place.address(1)
        self.settings = {"threads": "1 per server (started on one core)", "io": place.io, **settings}
        self.folder = place.subfolder(f"site-{place.block}")
        self.is_up = False
        self.servers = []

    def version(self):
        return processes.run([self.binary, "--version"], 10).split()[-1]

    def start(self):
        with open(os.path.join(self.folder, "dolmen.toml"), "w", encoding="utf-8") as file:
            file.write(self.site)
        core, block = str(self.place.proxy_core), f"127.0.{self.place.block}"
        words = [packages.find("taskset"), "-c", core, self.binary, "up", "--detach", "--block", block]
        with interrupts.held():
            self.is_up = True
            processes.remember(self)
            environment = {**os.environ, "DOLMEN_IO": self.place.io}
            words += ["--within", str(UP_WITHIN_S)]
            processes.run(words, UP_WITHIN_S + 10, cwd=self.folder, env=environment)
        status = processes.run([self.binary, "status", "--json"], 10, cwd=self.folder)
        self.servers = json.loads(status)["servers"]
        # Asked, not assumed: where the kernel has no io_uring, Dolmen takes epoll.
        self.settings["io"] = "io_uring" if all(_has_ring(pid) for pid in self.pids()) else "epoll"

    def pid(self, name):
        found = [server["pid"] for server in self.servers if server["name"] == name]
        if not found:
            raise Trouble(f"dolmen status shows no {name}")
        return found[0]

    def pids(self):
        return [server["pid"] for server in self.servers if server["role"] in self.roles]

    def beside(self):
        """The agents that started the servers, and `up` above them."""
        agents = {processes.parent(pid) for pid in self.pids()}
        return sorted(pid for pid in agents | {processes.parent(pid) for pid in agents} if pid > 1)

    def workers(self):
        return [child for server in self.servers if server["role"] == "app"
                for child in processes.children(server["pid"])]

    def writes_access_log(self):
        """Whether a request leaves a line in a log of the site: asked, not assumed."""
        host, port = self.address
        with urllib.request.urlopen(f"http://{host}:{port}{ASKED_FOR_LOG}", timeout=5) as answer:
            answer.read()
        deadline = time.monotonic() + LOG_WITHIN_S
        while time.monotonic() < deadline:
            if any(_holds(path, ASKED_FOR_LOG) for path in self._logs()):
                return True
            time.sleep(0.1)
        return False

    def _logs(self):
        root = os.path.realpath(os.path.join(self.folder, ".dolmen"))
        for folder, _, files in os.walk(root):
            yield from (os.path.join(folder, file) for file in files if ".log" in file)

    def end(self):
        """Stops the site and removes its state, which is elsewhere when root started it."""
        if not self.is_up:
            return
        # A signal in the middle would leave the rest undone.
        with interrupts.held():
            self.is_up = False
            self._stop()

    def _stop(self):
        link = os.path.join(self.folder, ".dolmen")
        state = os.path.realpath(link)
        try:
            processes.run([self.binary, "stop"], STOP_WITHIN_S, cwd=self.folder)
        except Trouble:
            # A site that never came up has nothing to stop. Of any other the state must stay: it says what runs.
            if os.path.exists(os.path.join(state, "site.json")):
                raise
        shutil.rmtree(state, ignore_errors=True)
        if os.path.islink(link):
            os.unlink(link)


def _has_ring(pid):
    folder = f"/proc/{pid}/fd"
    return any("io_uring" in os.readlink(os.path.join(folder, number)) for number in os.listdir(folder))


def _holds(path, text):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return text in file.read()
    except FileNotFoundError:
        return False
