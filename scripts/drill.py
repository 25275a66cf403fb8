#!/usr/bin/env python3
"""A fault drill: the example site loses one thing after another while people use it.

    scripts/drill.py target/release/dolmen

Runs a copy of examples/guestbook on loopback addresses of its own, reads and writes all the while through the
balancer, kills servers, machines and an agent, and counts what the users saw. A request may fail only if it
was inside the killed process; an entry that was acknowledged must be there at the end, always. Exits with 1
if a drill let more requests fail than could have been under way, or lost an entry.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

BLOCK = "127.0.45"
ADDRESS, PORT = f"{BLOCK}.1", 8080
# Together about 500 GET and 50 POST a second, as fast as the users can: each waits for its answer.
READERS, WRITERS = 10, 2
READ_EVERY_S, WRITE_EVERY_S = 0.02, 0.04
DRILL_S = 8
HEALTHY_WITHIN_S = 60
# Below this, a request could hang without anybody noticing.
REQUEST_TIMEOUT_S = 30

EXAMPLE = os.path.join(os.path.dirname(__file__), "..", "examples", "guestbook")


class Users:
    """People who read and write, and what they saw."""

    def __init__(self):
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.serial = 0
        self.acknowledged = set()
        self.begin("")
        readers = [threading.Thread(target=self.use, args=(self.read, READ_EVERY_S)) for _ in range(READERS)]
        writers = [threading.Thread(target=self.use, args=(self.write, WRITE_EVERY_S)) for _ in range(WRITERS)]
        self.threads = readers + writers
        for thread in self.threads:
            thread.start()

    def begin(self, drill):
        with self.lock:
            self.drill, self.good, self.slowest, self.failures = drill, 0, 0.0, []

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def use(self, ask, every):
        """One user, with one connection that stays open as long as the balancer lets it."""
        connection = None
        while not self.ending.wait(every):
            connection = connection or http.client.HTTPConnection(ADDRESS, PORT, timeout=REQUEST_TIMEOUT_S)
            began = time.monotonic()
            try:
                failure = ask(connection)
            except (OSError, http.client.HTTPException) as error:
                failure = f"{ask.__name__}: {type(error).__name__}: {error}"
                connection.close()
                connection = None
            self.count(failure, time.monotonic() - began)

    def count(self, failure, took):
        with self.lock:
            self.slowest = max(self.slowest, took)
            if failure:
                self.failures.append(failure)
            else:
                self.good += 1

    def read(self, connection):
        with self.lock:
            self.serial += 1
            path = ["/", "/api/entries?limit=5", "/style.css"][self.serial % 3]
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return None if answer.status == 200 else f"read {path}: {answer.status} {body[:80]!r}"

    def write(self, connection):
        with self.lock:
            self.serial += 1
            message = f"entry {self.serial}"
        body = json.dumps({"name": "drill", "message": message})
        connection.request("POST", "/api/entries", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 201:
            return f"write: {answer.status} {body[:80]!r}"
        with self.lock:
            self.acknowledged.add(message)
        return None


class Site:
    """The example, on a copy of its folder."""

    def __init__(self, dolmen, folder):
        self.dolmen, self.file = dolmen, os.path.join(folder, "dolmen.toml")

    def run(self, *words, check=True):
        command = [self.dolmen, *words, "--file", self.file]
        done = subprocess.run(command, capture_output=True, text=True, timeout=HEALTHY_WITHIN_S + 30)
        if check and done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def status(self):
        return json.loads(self.run("status", "--json", check=False).stdout)

    def await_healthy(self):
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while not (status := self.status())["healthy"]:
            if time.monotonic() > deadline:
                sick = [server for server in status["servers"] if server["state"] != "healthy"]
                raise SystemExit(f"not healthy within {HEALTHY_WITHIN_S} s: {json.dumps(sick, indent=2)}")
            time.sleep(0.1)

    def pid(self, name):
        return next(server["pid"] for server in self.status()["servers"] if server["name"] == name)

    def kill(self, *targets):
        for target in targets:
            self.run("kill", target)

    def start(self, *targets):
        for target in targets:
            self.run("start", target)

    def signal(self, name, number):
        os.kill(self.pid(name), number)


def drills(site):
    """What is lost, how, how it comes back, and how many requests may fail: those inside, at most one each."""
    inside = READERS + WRITERS
    def lose(*names):
        return (f"kill {', '.join(names)}", lambda: site.kill(*names), lambda: site.start(*names), inside)
    yield lose("web-1")
    yield lose("app-2")
    yield lose("web-1", "app-1")
    yield lose("gate-2")
    yield ("kill -9 web-2", lambda: site.signal("web-2", signal.SIGKILL), lambda: None, inside)
    yield ("kill -9 balancer-1", lambda: site.signal("balancer-1", signal.SIGKILL), lambda: None, inside)


def run(site):
    users, lost = Users(), False
    try:
        print(f"{'drill':24}{'good':>8}{'failed':>8}{'at most':>9}{'slowest':>10}")
        for name, lose, mend, most in drills(site):
            users.begin(name)
            time.sleep(1)
            lose()
            time.sleep(DRILL_S)
            mend()
            site.await_healthy()
            good, failures, slowest = users.good, list(users.failures), users.slowest
            print(f"{name:24}{good:>8}{len(failures):>8}{most:>9}{slowest:>8.2f} s", flush=True)
            for failure in sorted(set(failures)):
                print(f"    {failures.count(failure)} x {failure}")
            lost |= len(failures) > most or good == 0
    finally:
        users.end()
    return not lost and nothing_lost(users.acknowledged)


def nothing_lost(acknowledged):
    """Every entry that was acknowledged can be read."""
    found, before = set(), ""
    connection = http.client.HTTPConnection(ADDRESS, PORT, timeout=REQUEST_TIMEOUT_S)
    while True:
        connection.request("GET", f"/api/entries?limit=200{before}")
        entries = json.loads(connection.getresponse().read())
        if not entries:
            break
        found.update(entry["message"] for entry in entries)
        before = f"&before={entries[-1]['id']}"
    missing = acknowledged - found
    print(f"{len(acknowledged)} entries acknowledged, {len(missing)} lost {sorted(missing)[:5] or ''}")
    return not missing


def replace(path, old, new):
    with open(path) as file:
        text = file.read()
    assert old in text, f"{path} has no {old}"
    with open(path, "w") as file:
        file.write(text.replace(old, new))


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    dolmen = os.path.abspath(sys.argv[1])
    folder = tempfile.mkdtemp(prefix="dolmen-drill-")
    os.chmod(folder, 0o755)
    copy = os.path.join(folder, "guestbook")
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns(".dolmen", "src", "tests"))
    # Another name than the example's, since the state of a site that root starts is kept under its name.
    replace(os.path.join(copy, "dolmen.toml"), '"www.foobar.com"', '"drill.foobar.com"')
    site = Site(dolmen, copy)
    try:
        site.run("up", "--detach", "--block", BLOCK)
        well = run(site)
    finally:
        site.run("stop", check=False)
        shutil.rmtree(os.path.realpath(os.path.join(copy, ".dolmen")), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    print("the drill is passed" if well else "the drill is failed")
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()
