"""nginx as its manual advises for a reverse proxy with keep-alive to the servers, with one worker.

The free nginx has no active health checks; it takes a server out when requests fail (max_fails).
"""

from .. import nginx_conf, packages, processes

BODY = """\
    upstream servers {{
{servers}
        keepalive 128;
        keepalive_requests 100000000;
    }}
    server {{
        listen {host}:{port} backlog=4096;
        location / {{
            proxy_pass http://servers;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
"""


class Nginx:
    name = "nginx"
    programs = ("nginx",)

    def __init__(self, place, targets, logging, address=None):
        self.place, self.targets, self.logging = place, targets, logging
        self.address = address or place.address(place.NGINX)
        self.settings = {
            "workers": 1, "access_log": "to a file, combined, buffer=64k flush=1s" if logging else "off",
            "to_servers": "keep-alive, keepalive 128", "x_forwarded_for": True,
            "health_checks": "passive (max_fails), it has no others", "algorithm": "round robin",
        }
        self.program = None

    def version(self):
        # nginx writes its version to standard error: nginx version: nginx/1.22.1
        words = ["sh", "-c", 'exec "$0" -v 2>&1', packages.find("nginx")]
        return processes.run(words, 10).strip().rpartition("/")[2]

    def start(self):
        folder = self.place.subfolder(self.name)
        log = f"{folder}/access.log combined buffer=64k flush=1s" if self.logging else "off"
        words = nginx_conf.write(folder, self._body(), log)
        words = [packages.find("nginx"), *words]
        self.program = processes.Program(words, self.place.proxy_core, folder, self.name)
        self.program.await_listening(self.address)
        self.program.await_child()

    def _body(self):
        host, port = self.address
        servers = "\n".join(f"        server {to[0]}:{to[1]};" for to in self.targets)
        return BODY.format(host=host, port=port, servers=servers)

    def pids(self):
        return [self.program.pid, *processes.children(self.program.pid)]

    def beside(self):
        return []

    def end(self):
        if self.program:
            self.program.end()
