"""A local server that speaks GitHub's REST API of releases, with faults that can be switched on.

https://docs.github.com/en/rest/releases: drafts are listed for those who may write, assets are
uploaded to a URL of their own, an upload that breaks leaves an asset in the state `starter`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.local_server import QuietHandler, serving


class GitHubServer:
    """Releases by id; every asset that arrived; `faults`: uploads that break, `corrupt`: change."""

    def __init__(self) -> None:
        self.releases: dict[int, dict[str, Any]] = {}
        self.data: dict[int, bytes] = {}
        self.uploads: list[str] = []
        self.public: list[set[str]] = []
        self.seen: list[set[str]] = []  # the assets after every renaming
        self.faults = 0
        self.corrupt = 0
        self.url = ""
        self.next_id = 1

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id


@contextlib.contextmanager
def serve() -> Iterator[GitHubServer]:
    """Run it on a free local port."""
    state = GitHubServer()
    with serving(_Handler, state) as state.url:
        yield state


class _Handler(QuietHandler):
    state: GitHubServer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return lambda: self._route(name.removeprefix("do_"))
        raise AttributeError(name)

    def _route(self, method: str) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != "Bearer secret":
            self._answer(401, {"message": "Bad credentials"})
            return
        for wanted, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, url.path)
            if match and method == wanted:
                answer(self, body, parse_qs(url.query), *match.groups())
                return
        self._answer(404, {"message": "Not Found"})

    def _answer(self, status: int, value: Any) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(0 if status == 204 else len(data)))
        self.end_headers()
        if status != 204:
            self.wfile.write(data)

    def listing(self, _: bytes, query: dict[str, list[str]]) -> None:
        self._answer(200, list(self.state.releases.values()) if query["page"] == ["1"] else [])

    def create(self, body: bytes, _: Any) -> None:
        number = self.state.new_id()
        url = f"{self.state.url}/repos/me/models/releases/{number}"
        upload = f"{self.state.url}/uploads/{number}{{?name,label}}"
        release = {"id": number, "url": url, "upload_url": upload, "assets": []}
        self.state.releases[number] = {**release, **json.loads(body)}
        self._answer(201, self.state.releases[number])

    def show(self, _: bytes, __: Any, number: str) -> None:
        self._answer(200, self.state.releases[int(number)])

    def change(self, body: bytes, _: Any, number: str) -> None:
        release = self.state.releases[int(number)]
        release.update(json.loads(body))
        if not release["draft"]:
            self.state.public.append({asset["name"] for asset in release["assets"]})
        self._answer(200, release)

    def upload(self, body: bytes, query: dict[str, list[str]], number: str) -> None:
        (name,) = query["name"]
        assets = self.state.releases[int(number)]["assets"]
        if any(asset["name"] == name for asset in assets):
            self._answer(422, {"message": "already_exists"})
            return
        asset_id = self.state.new_id()
        url = f"{self.state.url}/repos/me/models/releases/assets/{asset_id}"
        broken = self.state.faults > 0
        stored = body
        if self.state.corrupt:
            self.state.corrupt -= 1
            stored = body + b"!"
        asset = {"id": asset_id, "url": url, "name": name, "size": len(stored)}
        asset |= {"state": "starter" if broken else "uploaded"}
        asset |= {"digest": f"sha256:{hashlib.sha256(stored).hexdigest()}"}
        assets.append(asset)
        if broken:
            self.state.faults -= 1
            self._answer(502, {})
            return
        self.state.data[asset_id] = stored
        self.state.uploads.append(name)
        self._answer(201, asset)

    def download(self, _: bytes, __: Any, number: str) -> None:
        self._answer(200, self.state.data[int(number)])

    def rename(self, body: bytes, _: Any, number: str) -> None:
        (release,) = (
            r
            for r in self.state.releases.values()
            if any(a["id"] == int(number) for a in r["assets"])
        )
        (asset,) = (a for a in release["assets"] if a["id"] == int(number))
        name = json.loads(body)["name"]
        if any(other["name"] == name for other in release["assets"]):
            self._answer(422, {"message": "already_exists"})
            return
        asset["name"] = name
        self.state.seen.append({a["name"] for a in release["assets"]})
        self._answer(200, asset)

    def delete(self, _: bytes, __: Any, number: str) -> None:
        for release in self.state.releases.values():
            release["assets"] = [a for a in release["assets"] if a["id"] != int(number)]
        self._answer(204, b"")


RELEASES = "/repos/me/models/releases"
ROUTES = (
    ("GET", RELEASES, _Handler.listing),
    ("POST", RELEASES, _Handler.create),
    ("GET", f"{RELEASES}/assets/(\\d+)", _Handler.download),
    ("DELETE", f"{RELEASES}/assets/(\\d+)", _Handler.delete),
    ("PATCH", f"{RELEASES}/assets/(\\d+)", _Handler.rename),
    ("GET", f"{RELEASES}/(\\d+)", _Handler.show),
    ("PATCH", f"{RELEASES}/(\\d+)", _Handler.change),
    ("POST", r"/uploads/(\d+)", _Handler.upload),
)
