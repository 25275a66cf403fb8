"""What a case is given: where, how long, which sides, and the sides themselves, made alike for all cases."""

import contextlib
import sys
import time
from dataclasses import dataclass, field

from . import binary, install, origin, rounds
from .sides.chain import Chain
from .sides.dolmen import ACCESS_LOG, Dolmen
from .sides.floor import Floor
from .sides.haproxy import HAProxy
from .sides.nginx import Nginx
from .trouble import Mistake

CHECK_EVERY = "2s"
# Without `on` a site has one machine, whose balancer checks the servers as the peers do.
BALANCER_SITE = """\
[balancer]
servers = [{servers}]
{access_log}
[balancer.check]
path = "{health}"
interval = "{every}"
"""
PATH_SITE = """\
[balancer]
{access_log}
[balancer.check]
interval = "{every}"

[web]
{access_log}
[web.check]
interval = "{every}"

[app]
command = "worker"
workers = 1
health = "/"
"""


@dataclass
class Bench:
    place: object
    # Makes another place for the same binary, which is given what it is to read through.
    another_place: object
    # Whether Dolmen is measured on epoll as well.
    both: bool
    rounds: int
    seconds: int
    # Whether access logs were asked for.
    log: bool
    # The names of the sides to measure.
    names: list
    # The path of the dolmen binary, when dolmen is one of them.
    dolmen: str | None
    notes: list = field(default_factory=list)
    _logging: bool | None = None

    def say(self, text):
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def measures(self, name):
        return name in self.names

    def balancers(self, origins):
        """The sides of every case with one proxy, not started yet."""
        logging = self.logging(origins)
        sides = [self._balancer_site(origins, logging)] if self.measures("dolmen") else []
        if self.measures("dolmen") and self.both:
            sides.append(self._balancer_site(origins, logging, self.another_place("epoll"), rounds.OURS_ON_EPOLL))
        sides += [HAProxy(self.place, origins, logging)] if self.measures("haproxy") else []
        return sides + ([Nginx(self.place, origins, logging)] if self.measures("nginx") else [])

    def beside(self, origins):
        """No peers: ours without an access log, and what the kernel alone costs."""
        sides = []
        if self.measures("dolmen") and self.logging(origins):
            place = self.another_place(self.place.io)
            sides.append(self._balancer_site(origins, False, place, rounds.OURS_WITHOUT_LOG))
        return sides + ([Floor(self.place, origins)] if self.measures("floor") else [])

    def chains(self, worker, origins):
        """The sides of the whole path, not started yet."""
        logging = self.logging(origins)
        sides = [self._path_site(logging)] if self.measures("dolmen") else []
        both = self.measures("haproxy") and self.measures("nginx")
        return sides + ([Chain(self.place, worker, logging)] if both else [])

    def logging(self, origins):
        """Whether all sides write an access log: as was asked, unless Dolmen does otherwise.

        No side may be spared what another has to do, so Dolmen is asked what it really does, once.
        """
        if self._logging is None:
            self._logging = self.log
            if self.measures("dolmen"):
                self._logging = self._dolmen_logs(origins)
            if self._logging != self.log:
                asked, got = ("on", "off") if self.log else ("off", "on")
                self.notes.append(
                    f"access logs were asked to be {asked}; this dolmen cannot, so they were {got} for all sides"
                )
        return self._logging

    def writes_logs(self):
        """What the last case did: "on" or "off"."""
        return "on" if self._logging else "off"

    def _dolmen_logs(self, origins):
        side = self._balancer_site(origins, self.log)
        with contextlib.ExitStack() as stack:
            stack.callback(side.end)
            side.start()
            return side.writes_access_log()

    def _balancer_site(self, origins, logging, place=None, name=rounds.OURS):
        servers = ", ".join(f'"{host}:{port}"' for host, port in origins)
        site = BALANCER_SITE.format(
            servers=servers, access_log=ACCESS_LOG[logging], health=origin.HEALTH, every=CHECK_EVERY
        )
        settings = _settings(logging, f"GET {origin.HEALTH}")
        return Dolmen(place or self.place, self.dolmen, site, ["balancer"], settings, name)

    def _path_site(self, logging):
        site = PATH_SITE.format(access_log=ACCESS_LOG[logging], every=CHECK_EVERY)
        settings = _settings(logging, "of web and worker")
        return Dolmen(self.place, self.dolmen, site, ["balancer", "web", "app"], settings, rounds.OURS)


def some(sides):
    """The sides of a case, unless there are none: not every side takes part in every case."""
    if not sides:
        raise Mistake("none of the sides asked for takes part in this case")
    return sides


def _settings(logging, check):
    return {
        "access_log": "to a file, combined, written once a second" if logging else "off",
        "to_servers": "keep-alive", "x_forwarded_for": True, "health_checks": f"{check} every {CHECK_EVERY}",
        "algorithm": "round-robin",
    }


def prepare(names, cases, given):
    """Checks that all programs are there and builds what has to be built; returns the dolmen binary's path."""
    classes = {"haproxy": HAProxy, "nginx": Nginx}
    programs = [program for name in names if name in classes for program in classes[name].programs]
    install.require([*programs, "taskset", "nginx", *(["wrk"] if any(case.uses_wrk for case in cases) else [])])
    for tool in {tool for case in cases for tool in case.tools}:
        binary.tool(tool)
    return binary.dolmen(given) if "dolmen" in names else None
