"""The floor: a proxy that passes bytes on without looking at them. No peer; see bench/floor.rs."""

from .. import binary, processes


class Floor:
    name = "floor"
    programs = ()

    def __init__(self, place, targets):
        self.place, self.targets = place, targets
        self.address = place.address(place.FLOOR)
        self.settings = {
            "threads": 1, "passes": "bytes, unread", "access_log": "none", "x_forwarded_for": "none",
            "health_checks": "none",
        }
        self.program = None

    def version(self):
        return "epoll"

    def start(self):
        words = [binary.tool("floor"), *(f"{host}:{port}" for host, port in [self.address, *self.targets])]
        self.program = processes.Program(words, self.place.proxy_core, self.place.subfolder(self.name), self.name)
        self.program.await_listening(self.address)

    def pids(self):
        return [self.program.pid]

    def beside(self):
        return []

    def end(self):
        if self.program:
            self.program.end()
