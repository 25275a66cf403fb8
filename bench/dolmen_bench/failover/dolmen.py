"""Our side: three machines with a database each. The test starts the agents, as systemd does on real machines."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile

from .machines import Machine, send, until

SITE = """[machines]
alpha = "10.0.0.1"
beta = "10.0.0.2"
gamma = "10.0.0.3"
[database]
on = ["alpha", "beta", "gamma"]
"""
GATE = 6432
WHOLE_S = 120


class Dolmen:
    name = "dolmen"

    def __init__(self, binary, block, lease):
        self.binary, self.block = binary, block
        self.folder = tempfile.mkdtemp(prefix="dolmen-failover-")
        os.chmod(self.folder, 0o755)
        with open(os.path.join(self.folder, "dolmen.toml"), "w", encoding="utf-8") as file:
            file.write(SITE + (f'lease = "{lease}"\n' if lease else ""))
        self.version = self._run("--version").strip()
        self.settings = f"lease {lease or '3s'}, synchronous"
        names = ("alpha", "beta", "gamma")
        self.machines = {name: Machine(name, f"127.0.{block}.{at}") for at, name in enumerate(names, 1)}
        self.servers = {f"database-{at}": name for at, name in enumerate(names, 1)}

    def up(self):
        self._run("up", "--detach", "--block", f"127.0.{self.block}")
        self.state = os.path.realpath(os.path.join(self.folder, ".dolmen"))
        self._run("stop")
        for name in self.machines:
            self.start(name)
        self.until_whole()

    def down(self):
        for machine in self.machines.values():
            machine.remove()
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *words, check=True):
        done = subprocess.run([self.binary, *words], cwd=self.folder, text=True, capture_output=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"dolmen {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, name):
        log = os.path.join(self.folder, f"agent-{name}.log")
        self.machines[name].start([self.binary, "agent", name, "--state", self.state], log)

    def _status(self):
        return json.loads(self._run("status", "--json", check=False) or "{}")

    def until_whole(self):
        def whole():
            status = self._status()
            database = status.get("database", {})
            good = [one for one in database.get("replicas", []) if one["state"] == "streaming" and one["synchronous"]]
            return status.get("healthy") and len(good) == 2
        until("a whole site", WHOLE_S, whole)

    def roles(self):
        """The machines of the primary and of a replica."""
        primary = self.servers[self._status()["database"]["primary"]]
        return primary, next(name for name in self.machines if name != primary)

    def primary_is(self, name):
        return self.servers.get(self._status().get("database", {}).get("primary")) == name

    def rejoined(self, name):
        server = next(server for server, machine in self.servers.items() if machine == name)
        replicas = self._status().get("database", {}).get("replicas", [])
        return any(one["name"] == server and one["state"] == "streaming" for one in replicas)

    def clients(self, away_from):
        """A client on a machine that is not struck, at its own gate."""
        name = [name for name in self.machines if name not in away_from][-1]
        with open(os.path.join(self.state, "secrets.json"), encoding="utf-8") as file:
            password = json.load(file)["app-password"]
        return {"host": self.machines[name].address, "port": GATE, "user": "app", "dbname": "app",
                "password": password, "connect_timeout": 20}

    def postgres(self, name):
        return self.machines[name].select(lambda words: re.match(r"postgres:|\S*/postgres -D", words))

    def manager(self, name):
        return self.machines[name].select(lambda words: "server database-" in words)

    def control_leader(self):
        """The processes of control's leader."""
        wanted = f"server {self._status()['control']['leader']} "
        return [pid for machine in self.machines.values() for pid in machine.select(lambda words: wanted in words)]

    def control(self, names):
        return [pid for name in names for pid in self.machines[name].select(lambda words: "server control-" in words)]

    def until_control(self, without):
        """All of its servers serve, none of them one of these processes, and one of them leads."""
        def whole():
            status = self._status()
            servers = [one for one in status.get("servers", []) if one["role"] == "control"]
            healthy = [one for one in servers if one["state"] == "healthy" and one["pid"] not in without]
            return len(healthy) == len(self.machines) and status.get("control", {}).get("leader")
        until("control", WHOLE_S, whole)

    def takeovers(self):
        """How many there have been."""
        return self._status()["database"]["agreed"]["epoch"]

    def switchover(self, primary, replica):
        del primary
        server = next(server for server, machine in self.servers.items() if machine == replica)
        self._run("switchover", server)

    def manager_back(self, name):
        """Its agent starts it again."""
        del name
