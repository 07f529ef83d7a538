"""Servers on loopback for tests: files by HTTP, with faults, alone or before another server."""

import hashlib
import http.client
import re
import socket
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Files(ThreadingHTTPServer):
    """Serves `files`, bytes by their path; or hands requests on to `behind`, a host and port.

    Each GET of a file meets the next of `faults`, until there are none: a status, "cut" (the
    connection ends in the middle), "short" (less than the range, as if that were all), "slow", or a
    function, which is called. Each PUT meets the next of `put_faults`: None, a status, "cut" (the
    connection ends before it is done) or "lost" (it ends when it is done, without an answer).
    `asked` keeps what was asked for: method, path, range.
    """

    daemon_threads = True

    def __init__(self, files=None, behind=None, ranges=True, tags=True):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.behind, self.ranges, self.tags = files or {}, behind, ranges, tags
        self.faults, self.put_faults, self.asked = [], [], []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        """Clients go away in the middle."""

    def parts(self):
        """The ranges that were asked for of files."""
        return [place for method, _, place in self.asked if method == "GET" and place]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def do_POST(self):
        self.answer(True)

    do_DELETE = do_POST

    def do_PUT(self):
        fault = self.server.put_faults.pop(0) if self.server.put_faults else None
        if fault is None:
            self.answer(True)
            return
        self.server.asked.append((self.command, self.path, None))
        if fault == "lost":
            self.handed_on()
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if isinstance(fault, int):
            self.send(fault, {}, b"", True)
        else:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, body):
        place = self.headers.get("Range") or self.headers.get("x-ms-range")
        self.server.asked.append((self.command, self.path, place))
        fault = None
        if self.command == "GET" and self.server.faults and (place or not self.server.ranges):
            fault = self.server.faults.pop(0)
        if callable(fault):
            fault = fault()
        if isinstance(fault, int):
            self.send(fault, {}, b"", body)
        elif self.server.behind is not None:
            self.send(*self.handed_on(), body, fault)
        else:
            self.send(*self.found(place), body, fault)

    def found(self, place):
        content = self.server.files.get(self.path.partition("?")[0])
        if content is None and self.path.endswith("/"):
            names = sorted(n for n in self.server.files if n.startswith(self.path))
            page = "".join(f'<a href="{name}">{name}</a>\n' for name in names).encode()
            return (200, {"Content-Type": "text/html"}, page) if names else (404, {}, b"")
        if content is None:
            return 404, {}, b""
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if self.server.tags else {}
        if place is None or not self.server.ranges:
            return 200, headers, content
        first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", place).groups()
        part = content[int(first) : int(last) + 1]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        return 206, headers, part

    def handed_on(self):
        length = int(self.headers.get("Content-Length", 0))
        other = http.client.HTTPConnection(*self.server.behind)
        other.request(self.command, self.path, self.rfile.read(length), dict(self.headers))
        reply = other.getresponse()
        left = {"connection", "transfer-encoding", "date", "server"}
        headers = {k: v for k, v in reply.getheaders() if k.lower() not in left}
        return reply.status, headers, reply.read()

    def send(self, status, headers, content, body, fault=None):
        self.send_response(status)
        headers = {name.title(): value for name, value in headers.items()}
        if fault == "short":
            content = content[: len(content) // 2]
            headers.pop("Content-Length", None)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and fault == "slow":
            for start in range(0, len(content), 1 + len(content) // 10):
                self.wfile.write(content[start : start + 1 + len(content) // 10])
                time.sleep(0.02)
        elif body:
            self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        if fault == "cut":
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def serving(*args, **kwargs):
    """A server, until the end."""
    server = Files(*args, **kwargs)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
