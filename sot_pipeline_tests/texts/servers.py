"""Servers on this machine that stand for the network: one of files, one of hub datasets."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class WebServer:
    """Files below a folder; `num_requests` counts, `behaviour` makes it misbehave:
    "no_head", "silent" (no size, no time), "cut" (ends early), "stall" (stops in the middle)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.behaviour = ""
        self.num_requests = 0
        self.stalled = threading.Event()
        self.released = threading.Event()
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.num_requests += 1
        path = self.folder / unquote(urlsplit(request.path).path).lstrip("/")
        if self.behaviour == "no_head" and request.command == "HEAD":
            return request.send_error(405)
        if not path.is_file():
            return request.send_error(404)
        content = path.read_bytes()
        request.send_response(200)
        if self.behaviour != "silent":
            request.send_header("Content-Length", str(len(content)))
            request.send_header("ETag", f'"{hash(content)}"')
        request.end_headers()
        if request.command == "HEAD":
            return None
        half = len(content) // 2
        request.wfile.write(content[:half])
        if self.behaviour == "stall":
            request.wfile.flush()
            self.stalled.set()
            self.released.wait(20)
        elif self.behaviour != "cut":
            request.wfile.write(content[half:])
        return None


class HubServer(WebServer):
    """The part of the Hugging Face hub's interface that reading a dataset asks for."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.num_requests += 1
        path = unquote(urlsplit(request.path).path)
        tree = f"/api/datasets/owner/name/tree/{self.COMMIT}"
        files = f"/datasets/owner/name/resolve/{self.COMMIT}/"
        if path.startswith(tree):
            found = self.listing(path.removeprefix(tree).strip("/"), request.path)
            return self.send(request, json.dumps(found).encode())
        if path.startswith("/api/datasets/owner/name"):
            return self.send(request, json.dumps({"id": "owner/name", "sha": self.COMMIT}).encode())
        if path.startswith(files) and (self.folder / path.removeprefix(files)).is_file():
            return self.send(request, (self.folder / path.removeprefix(files)).read_bytes())
        return request.send_error(404)

    def listing(self, below: str, query: str) -> list[dict[str, object]]:
        root = self.folder / below
        paths = root.rglob("*") if "recursive=true" in query.lower() else root.glob("*")
        return [
            {
                "type": "file" if path.is_file() else "directory",
                "path": path.relative_to(self.folder).as_posix(),
                "size": path.stat().st_size,
                "oid": "0" * 40,
            }
            for path in sorted(paths)
        ]

    def send(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)


@contextlib.contextmanager
def running(server: WebServer) -> Iterator[WebServer]:
    """Serve on 127.0.0.1 while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        do_HEAD = do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            listening.shutdown()
            thread.join()
