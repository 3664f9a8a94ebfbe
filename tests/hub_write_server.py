"""A local server that speaks the hub's endpoints for publishing, as `huggingface_hub` uses them.

Creating repositories, the tree, preupload, git LFS batches, commits, settings
(https://huggingface.co/docs/hub/api). Commits are atomic; LFS objects must have
their SHA-256.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.local_server import QuietHandler, serving

LARGE = (".onnx", ".onnx_data", ".gguf", ".bin", "tokenizer.json")


@dataclass
class Repo:
    """Its visibility, and every commit's files."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b"x"}])


class WriteHub:
    """The server's state; `faults` are answers to give, one each, instead of the next uploads."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.faults: list[int] = []
        self.url = ""


@contextlib.contextmanager
def serve() -> Iterator[WriteHub]:
    """Run it on a free local port."""
    hub = WriteHub()
    with serving(_Handler, hub) as hub.url:
        yield hub


class _Handler(QuietHandler):
    state: WriteHub

    def do_GET(self) -> None:
        self._route("GET")

    def do_HEAD(self) -> None:
        self._route("HEAD")

    def do_POST(self) -> None:
        self._route("POST")

    def do_PUT(self) -> None:
        self._route("PUT")

    def _route(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunked()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for wanted, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == wanted:
                answer(self, body, *match.groups())
                return
        self._answer(404, {}, "NotFound")

    def _chunked(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _answer(self, status: int, value: Any, error: str = "") -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def create(self, body: bytes) -> None:
        if self.headers.get("Authorization") != "Bearer hf_secret":
            self._answer(401, {})
            return
        raw = json.loads(body)
        name = f"{raw['organization']}/{raw['name']}" if raw.get("organization") else raw["name"]
        self.state.repos.setdefault(name, Repo(raw["visibility"] == "private"))
        self._answer(200, {"url": f"{self.state.url}/{name}", "name": name, "id": name})

    def info(self, _: bytes, name: str) -> None:
        repo = self.state.repos.get(name)
        if repo is None:
            self._answer(404, {}, "RepoNotFound")
            return
        sha = _sha(name, len(repo.commits) - 1)
        self._answer(200, {"id": name, "sha": sha, "private": repo.private, "siblings": []})

    def tree(self, _: bytes, name: str, revision: str) -> None:
        repo = self.state.repos.get(name)
        if repo is None:
            self._answer(404, {}, "RepoNotFound")
            return
        shas = {_sha(name, index): files for index, files in enumerate(repo.commits)}
        files = repo.commits[-1] if revision == "main" else shas[revision]
        self._answer(200, [_tree_entry(path, data) for path, data in files.items()])

    def validate(self, _: bytes) -> None:
        self._answer(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, _: str) -> None:
        files = self.state.repos[name].commits[-1]
        answers = []
        for item in json.loads(body)["files"]:
            large = item["path"].endswith(LARGE)
            old = files.get(item["path"])
            oid = None if old is None else _sha256(old) if large else _git_sha(old)
            mode = "lfs" if large else "regular"
            entry = {"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            answers.append(entry)
        self._answer(200, {"files": answers})

    def batch(self, body: bytes, name: str) -> None:
        answers: list[dict[str, Any]] = []
        for item in json.loads(body)["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.state.objects:
                actions = {"upload": {"href": f"{self.state.url}/objects/{item['oid']}"}}
                answer["actions"] = actions
            answers.append(answer)
        self._answer(200, {"transfer": "basic", "objects": answers})

    def upload(self, body: bytes, oid: str) -> None:
        if self.state.faults:
            self._answer(self.state.faults.pop(0), {})
        elif _sha256(body) != oid:
            self._answer(400, {})
        else:
            self.state.uploads.append(oid)
            self.state.objects[oid] = body
            self._answer(200, {})

    def commit(self, body: bytes, name: str, _: str) -> None:
        repo = self.state.repos[name]
        files = dict(repo.commits[-1])
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        repo.commits.append(files)
        sha = _sha(name, len(repo.commits) - 1)
        url = f"{self.state.url}/{name}/commit/{sha}"
        self._answer(200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def settings(self, body: bytes, name: str) -> None:
        self.state.repos[name].private = json.loads(body)["visibility"] == "private"
        self._answer(200, {})


NAME = r"([^/]+/[^/]+)"
ROUTES = (
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", f"/api/models/{NAME}/tree/([^/]+)", _Handler.tree),
    ("POST", f"/api/models/{NAME}/preupload/([^/]+)", _Handler.preupload),
    ("POST", f"/api/models/{NAME}/commit/([^/]+)", _Handler.commit),
    ("PUT", f"/api/models/{NAME}/settings", _Handler.settings),
    ("GET", f"/api/models/{NAME}", _Handler.info),
    ("POST", f"/{NAME}\\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/objects/([0-9a-f]+)", _Handler.upload),
)


def _tree_entry(path: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(data), "oid": _git_sha(data)}
    if not path.endswith(LARGE):
        return entry
    return {**entry, "lfs": {"oid": _sha256(data), "size": len(data), "pointerSize": 134}}


def _sha(name: str, index: int) -> str:
    return hashlib.sha1(f"{name}@{index}".encode()).hexdigest()


def _git_sha(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
