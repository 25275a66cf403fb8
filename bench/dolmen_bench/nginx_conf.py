"""The frame of every nginx configuration here: one worker, its files in one folder, nothing of the system's."""

FRAME = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{
    worker_connections 10240;
}}
http {{
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 60s;
    keepalive_requests 100000000;
    access_log {log};
{body}
}}
"""


def write(folder, body, log="off"):
    """Writes the configuration and returns the words that start it."""
    path = f"{folder}/nginx.conf"
    with open(path, "w", encoding="utf-8") as file:
        file.write(FRAME.format(folder=folder, log=log, body=body))
    return ["-e", f"{folder}/error.log", "-p", folder, "-c", path]
