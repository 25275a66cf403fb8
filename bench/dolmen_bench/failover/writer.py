"""One client that writes a row every 10 ms and notes when it was acknowledged. The same for every side."""

import threading
import time

import psycopg2

PACE_S = 0.010


class Writer:
    """`to`: what psycopg2 connects to. It connects again 10 ms after any error."""

    def __init__(self, to):
        self.to = to
        self.acknowledged, self.times, self.errors = [], [], []
        self.going = True
        self.next = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def begin(self):
        connection = self.connect()
        connection.cursor().execute("CREATE TABLE IF NOT EXISTS kept (id bigint PRIMARY KEY)")
        cursor = connection.cursor()
        cursor.execute("SELECT coalesce(max(id), 0) FROM kept")
        self.next = cursor.fetchone()[0] + 1
        connection.close()
        self.thread.start()

    def connect(self):
        connection = psycopg2.connect(**self.to)
        connection.autocommit = True
        return connection

    def end(self):
        self.going = False
        self.thread.join()

    def _run(self):
        connection = None
        while self.going:
            try:
                if connection is None:
                    connection = self.connect()
                number, self.next = self.next, self.next + 1
                connection.cursor().execute("INSERT INTO kept VALUES (%s)", (number,))
                self.acknowledged.append(number)
                self.times.append(time.monotonic())
            except psycopg2.Error as error:
                self.errors.append((time.monotonic(), str(error).split("\n", maxsplit=1)[0]))
                if connection is not None:
                    connection.close()
                connection = None
            time.sleep(PACE_S)

    def outage(self, since, until):
        """The longest time without an acknowledgement that ends after `since`."""
        times = [at for at in self.times if at <= until] + [until]
        return max((b - a for a, b in zip(times, times[1:]) if b > since), default=until - since)

    def last_before(self, moment):
        return max((at for at in self.times if at <= moment), default=moment)

    def first_after(self, moment):
        return min((at for at in self.times if at > moment), default=float("inf"))

    def written_after(self, moment):
        return bool(self.times) and self.times[-1] > moment

    def lost(self):
        """What was acknowledged and is not there."""
        connection = self.connect()
        cursor = connection.cursor()
        cursor.execute("SELECT id FROM kept")
        there = {row[0] for row in cursor.fetchall()}
        connection.close()
        return len(set(self.acknowledged) - there)
