"""A small HTTP server on 127.0.0.1 for pages, models and the answers of pages.

Invariants: it serves files inside the mounted folders only, and sends what a browser needs to give
WebAssembly threads (COOP and COEP), unless it is asked not to. It takes posts only from a page of
its own that was given the token, and no more of them than was said: other pages in the same
browser, names that were pointed at this machine, and other programs of this machine can post, too.
"""

from __future__ import annotations

import contextlib
import mimetypes
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

HOST = "127.0.0.1"
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Python's table differs between machines, and a module of the wrong type is refused.
TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}
# WebLLM asks for a model's files as the hub names them: MODEL/resolve/main/FILE.
HUB_PATH = "/resolve/main/"
TOKEN = "X-Edgeproof-Token"
LENGTH = re.compile(r"[0-9]{1,12}")
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
BLOCK = 1 << 20


@dataclass
class Site:
    """What is served: URL prefixes ending in `/` → folders; and what pages have posted.

    `requests` has each path that was asked for; `isolated` sends the headers for threads.
    `largest_post` is in bytes; with 0 nothing is taken. The page sends `token` in the header TOKEN.
    """

    mounts: Mapping[str, Path]
    isolated: bool = True
    largest_post: int = 0
    token: str = field(default_factory=secrets.token_urlsafe)
    requests: list[str] = field(default_factory=list)
    posted: SimpleQueue[bytes] = field(default_factory=SimpleQueue)

    def file(self, path: str) -> Path | None:
        """The file that a URL path names; None if there is none inside its folder."""
        for prefix in sorted(self.mounts, key=len, reverse=True):
            if path.startswith(prefix):
                folder = self.mounts[prefix].resolve()
                name = path[len(prefix) :] or "index.html"
                found = (folder / name).resolve()
                # What is linked to from inside the folder may lie elsewhere: artifacts do.
                inside = ".." not in Path(name).parts and not Path(name).is_absolute()
                return found if inside and found.is_file() else None
        return None


@contextlib.contextmanager
def serving(site: Site, port: int = 0) -> Iterator[str]:
    """Serve in threads of their own while the block runs; gives the address, without a slash."""
    with running(make_server(site, port)) as address:
        yield address


@contextlib.contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[str]:
    """Run any server so, and close it then; gives its address."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def make_server(site: Site, port: int = 0) -> ThreadingHTTPServer:
    """A server on a port (0: any free one); the caller runs `serve_forever`."""
    return ThreadingHTTPServer((HOST, port), partial(_Handler, site))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, site: Site, *args: object) -> None:
        self._site = site
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """A file, or the part of it that a Range header asks for."""
        self._send(body=True)

    def do_HEAD(self) -> None:
        """The headers of a file."""
        self._send(body=False)

    def do_POST(self) -> None:
        """Bytes for the program that has opened the page."""
        refusal = self._refusal()
        if refusal is not None:
            self.close_connection = True  # what was sent stays unread
            self._head(refusal, {"Content-Length": "0", "Connection": "close"})
            return
        self._site.posted.put(self.rfile.read(int(self.headers["Content-Length"])))
        self._head(HTTPStatus.NO_CONTENT, {"Content-Length": "0"})

    def _refusal(self) -> HTTPStatus | None:
        """Why a post is not taken; None if it is."""
        host = f"{HOST}:{self.connection.getsockname()[1]}"
        own = (self.headers.get("Host"), self.headers.get("Origin")) == (host, f"http://{host}")
        token = self.headers.get(TOKEN, "").encode()
        if not own or not secrets.compare_digest(token, self._site.token.encode()):
            return HTTPStatus.FORBIDDEN
        length = self.headers.get("Content-Length", "")
        if not LENGTH.fullmatch(length):
            return HTTPStatus.LENGTH_REQUIRED
        if int(length) > self._site.largest_post:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Silence: a test or a report has its own output."""

    def _send(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).replace(HUB_PATH, "/")
        self._site.requests.append(path)
        found = self._site.file(path)
        if found is None:
            self._head(HTTPStatus.NOT_FOUND, {"Content-Length": "0"})
            return
        size = found.stat().st_size
        start, stop = _span(self.headers.get("Range"), size)
        kind = TYPES.get(found.suffix) or mimetypes.guess_type(found.name)[0]
        headers = {
            "Content-Type": kind or "application/octet-stream",
            "Content-Length": str(stop - start),
            "Accept-Ranges": "bytes",
            "Cache-Control": "no-cache",
        }
        status = HTTPStatus.OK
        if "Range" in self.headers:
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._head(status, headers)
        if body:
            # A page may go away in the middle of a file.
            with found.open("rb") as file, contextlib.suppress(ConnectionError):
                file.seek(start)
                self._copy(file, stop - start)

    def _copy(self, file: BinaryIO, count: int) -> None:
        while count and (data := file.read(min(BLOCK, count))):
            self.wfile.write(data)
            count -= len(data)

    def _head(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, **(ISOLATION if self._site.isolated else {})}.items():
            self.send_header(name, value)
        self.end_headers()


def _span(header: str | None, size: int) -> tuple[int, int]:
    """First byte and the one after the last; all of the file if the header is not understood."""
    match = RANGE.fullmatch(header or "")
    if match is None or match.group(0) == "bytes=-":
        return 0, size
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return min(int(first), size), min(int(last) + 1, size) if last else size
