"""A small application: what it does is in the path of the request."""
import json, os, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

mode = sys.argv[1] if len(sys.argv) > 1 else ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status, text = 200, str(os.getpid())
        if self.path == "/health":
            status = 500 if os.path.exists("ill") else 200
        elif self.path == "/environment":
            text = json.dumps(dict(os.environ, CWD=os.getcwd()))
        elif self.path == "/headers":
            text = json.dumps({name.lower(): value for name, value in self.headers.items()})
        elif self.path == "/slow":
            time.sleep(1)
        elif self.path == "/hold":
            deadline = time.time() + 20
            while not os.path.exists("release") and time.time() < deadline:
                time.sleep(0.01)
        body = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


print("hello from", os.getpid(), flush=True)
if mode == "odd":
    sys.stdout.buffer.write(b"odd \xff\x07 bytes\n" + b"x" * 5000 + b"\n")
    sys.stdout.flush()
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "parent":
    child = subprocess.Popen(["sleep", "1000"])
    with open("child", "w") as file:
        file.write(str(child.pid))
host = "127.0.0.1" if mode == "local" else os.environ["HOST"]
ThreadingHTTPServer((host, int(os.environ["PORT"])), Handler).serve_forever()
