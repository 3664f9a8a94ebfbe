"""A local server that speaks the hub's endpoints, with faults that can be switched on.

It serves what `huggingface_hub` asks for: model info, file tree, and files with HEAD, ETag,
`X-Repo-Commit` and byte ranges (https://huggingface.co/docs/hub/api).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.local_server import QuietHandler, serving

INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
RANGE = re.compile(r"bytes=(\d+)-")


@dataclass
class Repo:
    """One repository: commits by id, and the branches and tags that name them."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    tags: tuple[str, ...] = ()
    # Answer to every request for a file (or for anything, with `status_for_info`).
    status: int = 200
    error_code: str = ""
    status_for_info: bool = False
    # How many requests are still answered with 503.
    unavailable: int = 0
    # Cut the connection once, after so many bytes of the file.
    cut_after: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    range: str | None


class Hub:
    """The server's state: repositories, and what was asked for."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.url = ""

    def add(self, name: str, revisions: dict[str, dict[str, bytes]], **options: Any) -> Repo:
        """Publish a repository whose refs each have a commit of their own."""
        refs = {ref: hashlib.sha1(f"{name}@{ref}".encode()).hexdigest() for ref in revisions}
        commits = {refs[ref]: files for ref, files in revisions.items()}
        self.repos[name] = Repo(commits, refs, **options)
        return self.repos[name]


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub on a free local port."""
    hub = Hub()
    with serving(_Handler, hub) as hub.url:
        yield hub


class _Handler(QuietHandler):
    state: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append(Request(self.command, path, self.headers.get("Range")))
        routes = ((TREE, self._tree), (INFO, self._info), (FILE, self._file))
        for pattern, answer in routes:
            match = pattern.fullmatch(path)
            if match:
                self._guarded(answer, match, info=pattern is not FILE)
                return
        self._fail(404, "")

    def _guarded(self, answer: Any, match: re.Match[str], *, info: bool) -> None:
        repo = self.state.repos.get(match[1])
        if repo is None:
            self._fail(404, "RepoNotFound")
        elif repo.unavailable:
            repo.unavailable -= 1
            self._fail(503, "")
        elif repo.status != 200 and (not info or repo.status_for_info):
            self._fail(repo.status, repo.error_code)
        else:
            ref = match[2] or "main"
            commit = repo.refs.get(ref, ref)
            if commit in repo.commits:
                answer(repo, commit, match)
            else:
                self._fail(404, "RevisionNotFound")

    def _info(self, repo: Repo, commit: str, match: re.Match[str]) -> None:
        siblings = [{"rfilename": name} for name in repo.commits[commit]]
        said = {"sha": commit, "siblings": siblings, "tags": [*repo.tags]}
        self._json({"id": match[1], "modelId": match[1], **said})

    def _tree(self, repo: Repo, commit: str, _: re.Match[str]) -> None:
        files = repo.commits[commit].items()
        self._json(
            [
                {"type": "file", "path": name, "size": len(data), "oid": _etag(data)[:40]}
                for name, data in files
            ]
        )

    def _file(self, repo: Repo, commit: str, match: re.Match[str]) -> None:
        data = repo.commits[commit].get(match[3])
        if data is None:
            self._fail(404, "EntryNotFound")
            return
        asked = RANGE.fullmatch(self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = repo.cut_after.pop(match[3], None)
        self.wfile.write(data[start:cut])
        if cut is not None:
            self.close_connection = True

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
