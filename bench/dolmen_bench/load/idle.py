"""Many connections that have each made one request and then stay open without another."""

import selectors
import socket

from ..trouble import Trouble

# So many are opened at a time; more would overflow the backlog and measure that instead.
AT_ONCE = 256
ANSWER_WITHIN_S = 20
READ_BYTES = 65536


class Idle:
    """Use it as a context: the connections are closed at the end."""

    def __init__(self, address, path, count):
        self.address, self.count = address, count
        self.request = f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n\r\n".encode()
        self.sockets = []

    def __enter__(self):
        try:
            while len(self.sockets) < self.count:
                self._open(min(AT_ONCE, self.count - len(self.sockets)))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_):
        self._close()

    def _close(self):
        for connection in self.sockets:
            connection.close()

    def _open(self, count):
        """Opens connections and waits until each has its whole answer."""
        with selectors.DefaultSelector() as selector:
            for _ in range(count):
                connection = socket.create_connection(self.address, ANSWER_WITHIN_S)
                self.sockets.append(connection)
                connection.sendall(self.request)
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ, bytearray())
            waiting = count
            while waiting:
                ready = selector.select(ANSWER_WITHIN_S)
                if not ready:
                    raise Trouble(f"{waiting} connections had no answer within {ANSWER_WITHIN_S} s")
                for key, _ in ready:
                    if _read(key.fileobj, key.data):
                        selector.unregister(key.fileobj)
                        waiting -= 1

    def still_open(self):
        """How many the other side has not closed."""
        return sum(_is_open(connection) for connection in self.sockets)


def _read(connection, answer):
    """True once the whole answer is there."""
    part = connection.recv(READ_BYTES)
    if not part:
        raise Trouble("a connection was closed before its answer was complete")
    answer += part
    head, found, body = bytes(answer).partition(b"\r\n\r\n")
    if not found:
        return False
    if head.split(b" ", 2)[1] != b"200":
        raise Trouble(f"an answer was not a 200: {head[:80]!r}")
    lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return len(body) >= int(lengths[0])


def _is_open(connection):
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
