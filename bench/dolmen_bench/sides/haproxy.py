"""HAProxy as its configuration manual advises for a keep-alive reverse proxy, with one thread."""

from .. import packages, processes

LOG = """\
    log stdout format raw local0
"""
CONFIG = """\
global
    nbthread 1
    maxconn 9600
{log}
defaults
    mode http
    {logged}
    option dontlognull
    option forwardfor
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
frontend front
    bind {host}:{port} backlog 4096
    default_backend servers
backend servers
    balance roundrobin
    option httpchk GET {health}
    default-server check inter 2s
{servers}
"""


class HAProxy:
    name = "haproxy"
    programs = ("haproxy",)

    def __init__(self, place, targets, logging, health="/healthz"):
        self.place, self.targets, self.logging, self.health = place, targets, logging, health
        self.address = place.address(place.HAPROXY)
        self.settings = {
            "threads": 1, "access_log": "to a file, httplog" if logging else "off",
            "to_servers": "keep-alive, http-reuse always", "x_forwarded_for": True,
            "health_checks": f"GET {health} every 2s", "algorithm": "roundrobin",
        }
        self.program = None

    def version(self):
        # HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/
        return processes.run([packages.find("haproxy"), "-v"], 10).split()[2]

    def start(self):
        folder = self.place.subfolder(self.name)
        path = f"{folder}/haproxy.cfg"
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._config())
        words = [packages.find("haproxy"), "-db", "-f", path]
        self.program = processes.Program(words, self.place.proxy_core, folder, self.name)
        self.program.await_listening(self.address)

    def _config(self):
        host, port = self.address
        servers = "\n".join(
            f"    server server-{number} {to[0]}:{to[1]}" for number, to in enumerate(self.targets, start=1)
        )
        return CONFIG.format(
            host=host, port=port, servers=servers, health=self.health, log=LOG if self.logging else "",
            logged="log global\n    option httplog" if self.logging else "no log",
        )

    def pids(self):
        return [self.program.pid]

    def beside(self):
        return []

    def end(self):
        if self.program:
            self.program.end()
