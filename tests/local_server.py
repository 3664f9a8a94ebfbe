"""A server on a free port of this machine, for the tests' stand-ins of the hub and GitHub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from runtimes.browser.server import HOST, running


class QuietHandler(BaseHTTPRequestHandler):
    """Answers from `state`, and prints nothing."""

    state: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""


@contextlib.contextmanager
def serving(handler: type[QuietHandler], state: Any) -> Iterator[str]:
    """The address at which `handler` answers from `state` meanwhile."""
    bound = type("BoundHandler", (handler,), {"state": state})
    with running(ThreadingHTTPServer((HOST, 0), bound)) as address:
        yield address
