"""Clients that write as fast as they can, while a fault is measured."""

import glob
import os
import shutil
import subprocess

from ..trouble import Mistake, Trouble

SCALE, CLIENTS = 5, 4
# It is ended before.
SECONDS = 3600


class Load:
    """pgbench, to where a writer connects. It must live as long as this: a client of it that sees an error ends it."""

    def __init__(self, to):
        self.words = ["-h", to["host"], "-p", str(to["port"]), "-U", to["user"], to["dbname"]]
        self.environment = dict(os.environ, PGPASSWORD=to.get("password", ""), LC_ALL="C.UTF-8")
        found = shutil.which("pgbench") or next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/pgbench"))), None)
        if not found:
            raise Mistake("the load needs pgbench, which is part of PostgreSQL")
        self.pgbench = found

    def __enter__(self):
        filled = subprocess.run([self.pgbench, "-i", "-q", "-s", str(SCALE), *self.words], env=self.environment,
                                capture_output=True, text=True, check=False)
        if filled.returncode:
            raise Trouble(f"pgbench: {filled.stderr}")
        self.process = subprocess.Popen(
            [self.pgbench, "-n", "-c", str(CLIENTS), "-T", str(SECONDS), *self.words], env=self.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return self

    def __exit__(self, kind, *rest):
        ended = self.process.poll()
        self.process.kill()
        said = self.process.communicate()[1]
        if ended is not None and kind is None:
            raise Trouble(f"pgbench ended before its time: {said}")
