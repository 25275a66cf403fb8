"""The database as a web application sees it: a pool of connections that are tested before they are lent, and threads
that each commit one row after another. Nothing in here knows of a gate, of replicas or of failover.

It goes on until its standard input is closed, and then says what was acknowledged and what of that is not there.
"""

import json
import sys
import threading
import time

from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

THREADS = 4

# Where the database is and who we are is in the environment, as libpq reads it.
engine = create_engine("postgresql+psycopg2://", pool_size=THREADS, pool_pre_ping=True)
ended = threading.Event()


class Worker(threading.Thread):
    def __init__(self, number):
        super().__init__()
        self.number, self.kept, self.failed, self.longest = number, [], [], 0.0

    def run(self):
        count, last = 0, time.monotonic()
        while not ended.is_set():
            count += 1
            row = self.number * 10_000_000 + count
            try:
                with engine.begin() as connection:
                    connection.execute(text("INSERT INTO request VALUES (:row)"), {"row": row})
            except DBAPIError as error:
                self.failed.append(str(error.orig).strip())
                continue
            self.kept.append(row)
            self.longest, last = max(self.longest, time.monotonic() - last), time.monotonic()
            time.sleep(0.01)


with engine.begin() as connection:
    connection.execute(text("CREATE TABLE request (id bigint PRIMARY KEY)"))
workers = [Worker(number) for number in range(1, THREADS + 1)]
for worker in workers:
    worker.start()
print("ready", flush=True)
sys.stdin.read()
ended.set()
for worker in workers:
    worker.join()
with engine.begin() as connection:
    there = {row for (row,) in connection.execute(text("SELECT id FROM request"))}
kept = [row for worker in workers for row in worker.kept]
print(json.dumps({
    "acknowledged": len(kept),
    "lost": len([row for row in kept if row not in there]),
    "failed": [error for worker in workers for error in worker.failed],
    "longest_s": max(worker.longest for worker in workers),
}))
