"""Patroni at its tightest legal setting: three machines with etcd, Patroni and PostgreSQL each.

Its clients use what libpq has: all hosts, and `target_session_attrs=read-write`; time-outs as short as is sensible.
"""

import glob
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

from .machines import Machine, until

WHOLE_S = 180
PG, REST, ETCD, PEER = 5442, 8008, 2379, 2380
NAMES = ("one", "two", "three")
# The least that Patroni accepts.
DCS = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3, "maximum_lag_on_failover": 1048576, "synchronous_mode": True}


class Patroni:
    name = "patroni"

    def __init__(self, block):
        self.folder = tempfile.mkdtemp(prefix="patroni-failover-")
        os.chmod(self.folder, 0o755)
        self.bin = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        said = subprocess.run(["patroni", "--version"], text=True, capture_output=True, check=True).stdout
        self.version = said.strip()
        self.settings = "ttl 20, loop_wait 1, retry_timeout 3, synchronous_mode; three etcd"
        self.machines = {name: Machine(name, f"127.0.{block}.{at}") for at, name in enumerate(NAMES, 11)}

    def up(self):
        for name in NAMES:
            folder = os.path.join(self.folder, name)
            os.makedirs(folder)
            shutil.chown(folder, "postgres", "postgres")
            with open(os.path.join(folder, "patroni.json"), "w", encoding="utf-8") as file:
                json.dump(self._settings(name), file)
        for name in NAMES:
            self._etcd(name)
        for name in NAMES:
            self._patroni(name)
        self.until_whole()

    def down(self):
        for machine in self.machines.values():
            machine.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name):
        self._etcd(name)
        self._patroni(name)

    def _as_postgres(self, name, words):
        folder = os.path.join(self.folder, name)
        words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *words]
        return self.machines[name].start(words, os.path.join(self.folder, f"{name}.log"), cwd=folder)

    def _etcd(self, name):
        at = self.machines[name].address
        peers = ",".join(f"{one}=http://{machine.address}:{PEER}" for one, machine in self.machines.items())
        self._as_postgres(name, [
            "etcd", "--name", name, "--data-dir", os.path.join(self.folder, name, "etcd"),
            "--listen-client-urls", f"http://{at}:{ETCD}", "--advertise-client-urls", f"http://{at}:{ETCD}",
            "--listen-peer-urls", f"http://{at}:{PEER}", "--initial-advertise-peer-urls", f"http://{at}:{PEER}",
            "--initial-cluster", peers, "--initial-cluster-state", "new"])

    def _patroni(self, name):
        self._as_postgres(name, ["patroni", os.path.join(self.folder, name, "patroni.json")])

    def _settings(self, name):
        at, folder = self.machines[name].address, os.path.join(self.folder, name)
        trust = ["local all all trust", "host all all 127.0.0.0/8 trust", "host replication all 127.0.0.0/8 trust"]
        return {
            "scope": "bench", "name": name,
            "restapi": {"listen": f"{at}:{REST}", "connect_address": f"{at}:{REST}"},
            "etcd3": {"hosts": [f"{machine.address}:{ETCD}" for machine in self.machines.values()]},
            "bootstrap": {
                "dcs": dict(DCS, postgresql={"use_pg_rewind": True, "use_slots": True, "parameters": {
                    "wal_level": "replica", "hot_standby": "on", "wal_retrieve_retry_interval": "100ms"}}),
                "initdb": [{"encoding": "UTF8"}, "data-checksums", {"auth-host": "trust"}, {"auth-local": "trust"}]},
            "postgresql": {
                "listen": f"{at}:{PG}", "connect_address": f"{at}:{PG}", "data_dir": f"{folder}/data", "bin_dir": self.bin,
                "pgpass": f"{folder}/pgpass",
                "authentication": {who: {"username": "postgres", "password": "x"} for who in ("superuser", "replication")},
                "parameters": {"unix_socket_directories": folder}, "pg_hba": trust},
        }

    def _rest(self, name, path=""):
        try:
            with urllib.request.urlopen(f"http://{self.machines[name].address}:{REST}/{path}", timeout=2) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            try:
                return json.load(error)
            except ValueError:
                return {}
        except (OSError, ValueError):
            return {}

    def _members(self):
        for name in NAMES:
            if members := self._rest(name, "cluster").get("members"):
                return {one["name"]: one for one in members}
        return {}

    def until_whole(self):
        def whole():
            roles = [self._rest(name).get("role") for name in NAMES]
            states = [one.get("state") for one in self._members().values()]
            leader = [one for one in roles if one in ("master", "primary")]
            good = all(state in ("running", "streaming") for state in states) and len(states) == 3
            synchronous = any(one.get("role") in ("sync_standby", "quorum_standby") for one in self._members().values())
            return len(leader) == 1 and good and synchronous
        until("a whole Patroni cluster", WHOLE_S, whole, 0.2)

    def roles(self):
        primary = next(name for name in NAMES if self._rest(name).get("role") in ("master", "primary"))
        # The one that Patroni would promote.
        members = self._members()
        sync = [name for name, one in members.items() if one.get("role") in ("sync_standby", "quorum_standby")]
        return primary, (sync or [name for name in NAMES if name != primary])[0]

    def primary_is(self, name):
        return self._rest(name).get("role") in ("master", "primary")

    def rejoined(self, name):
        return self._members().get(name, {}).get("state") in ("running", "streaming") \
            and self._rest(name).get("role") == "replica"

    def clients(self, away_from):
        del away_from
        hosts = [machine.address for machine in self.machines.values()]
        return {"host": ",".join(hosts), "port": ",".join([str(PG)] * 3), "user": "postgres", "dbname": "postgres",
                "target_session_attrs": "read-write", "connect_timeout": 2, "tcp_user_timeout": 2000,
                "keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 2}

    def postgres(self, name):
        return self.machines[name].select(lambda words: "postgres:" in words[:12] or "/postgres -D" in words)

    def manager(self, name):
        return self.machines[name].select(lambda words: "bin/patroni " in words)

    def takeovers(self):
        """It does not count them."""

    def switchover(self, primary, replica):
        words = ["patronictl", "-c", os.path.join(self.folder, primary, "patroni.json"), "switchover", "bench", "--force",
                 "--candidate", replica]
        version = self.version.split()[-1]
        words += ["--leader" if version >= "4" else "--master", primary]
        subprocess.run(words, check=True, capture_output=True, env=dict(os.environ, LC_ALL="C.UTF-8"))

    def manager_back(self, name):
        """What systemd does; the machine's PostgreSQL runs on meanwhile."""
        self._patroni(name)
