"""HAProxy before nginx before the worker: the whole path as it is built today."""

from .haproxy import HAProxy
from .nginx import Nginx


class Chain:
    name = "haproxy-nginx"
    programs = (*HAProxy.programs, *Nginx.programs)

    def __init__(self, place, worker, logging):
        web = place.address(place.WEB, place.WEB_PORT)
        self.parts = [
            Nginx(place, [worker], logging, address=web),
            HAProxy(place, [web], logging, health="/"),
        ]
        self.address = self.parts[1].address
        self.settings = {part.name: part.settings for part in reversed(self.parts)}

    def version(self):
        return ", ".join(f"{part.name} {part.version()}" for part in reversed(self.parts))

    def start(self):
        for part in self.parts:
            part.start()

    def pids(self):
        return [pid for part in self.parts for pid in part.pids()]

    def beside(self):
        return []

    def end(self):
        for part in reversed(self.parts):
            part.end()
