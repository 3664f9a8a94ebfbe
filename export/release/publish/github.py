"""`github:owner/repo`: archives and documents as the assets of a GitHub release.

It stays a draft, which nobody else sees, until every asset was read back. GitHub changes a public
release only file by file: where that is allowed, all new assets are uploaded and read back under
temporary names first, and then each takes its place by one deletion and one renaming. REST API:
https://docs.github.com/en/rest/releases. GITHUB_TOKEN and, for servers of one's own,
GITHUB_API_URL are read from the environment, as in GitHub Actions.
"""

from __future__ import annotations

import hashlib
import os
from functools import partial
from typing import Any

from edgeproof.errors import InputError
from export.release.dist import ARCHIVES
from export.release.notes import NOTES
from export.release.publish.plan import PublishPlan, Say, Upload, VerifiedRelease, compare
from export.release.publish.retries import SERVER_ERROR, TOO_MANY, DamagedTransferError, persist

API = "https://api.github.com"
TIMEOUT = 60  # seconds without an answer
CHUNK = 1 << 20
STAGED = ".edgeproof-new"  # ends an asset's name until it takes its place


class GitHub:
    """A repository's releases; the tag is the release's name."""

    def __init__(self, publication: VerifiedRelease, address: str) -> None:
        import requests

        if address.count("/") != 1:
            raise InputError(f"github:{address}: not owner/repo")
        self._session = requests.Session()
        token = os.environ.get("GITHUB_TOKEN") or os.environ.get("GH_TOKEN")
        if not token:
            raise InputError("GITHUB_TOKEN is not set: a token that may write to the repository")
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.headers["X-GitHub-Api-Version"] = "2022-11-28"
        base = os.environ.get("GITHUB_API_URL", API).rstrip("/")
        self._place = f"github:{address} {publication.name}"
        self._replace = publication.replace
        self._releases = f"{base}/repos/{address}/releases"
        self._tag = publication.name
        self._notes = (publication.folder / NOTES).read_text("utf-8")
        self._files = _assets(publication)

    def plans(self) -> list[PublishPlan]:
        """Compare with the release of that tag, draft or not."""
        assets = _complete(self._find())
        there = {
            name: _sha256(asset) for name, asset in assets.items() if not name.endswith(STAGED)
        }
        return [compare(self._place, self._files, there)]

    def carry_out(self, plan: PublishPlan, say: Say) -> None:
        """Draft, assets, read back, publish; or replace what is public."""
        release = self._find() or self._call(
            "POST", self._releases,
            json={"tag_name": self._tag, "name": self._tag, "body": self._notes, "draft": True},
        )  # fmt: skip
        if release["draft"]:
            self._fill(release, plan, say)
        elif plan.nothing:
            return
        elif self._replace:
            self._exchange(release, plan, say)
        else:
            raise InputError(
                f"{plan.place}: it is public and differs; choose another version, or change what"
                " people may have already with --replace"
            )
        self._call("PATCH", release["url"], json={"draft": False, "body": self._notes})

    def _fill(self, release: Any, plan: PublishPlan, say: Say) -> None:
        """Make a draft's assets those of the plan."""
        names = {item.path for item in plan.keep}
        for asset in release["assets"]:
            if asset["name"] not in names:
                self._call("DELETE", asset["url"])
        for item in plan.upload:
            persist(f"github {item.path}", partial(self._upload, release, item, item.path))
            say(f"uploaded: {item.path}")

    def _exchange(self, release: Any, plan: PublishPlan, say: Say) -> None:
        """Upload all that is new beside a public release's assets, then put it in their places."""
        there = _complete(release)
        for item in plan.upload:
            name = item.path + STAGED
            if name not in there or _sha256(there[name]) != item.sha256:
                persist(f"github {item.path}", partial(self._upload, release, item, name))
                say(f"uploaded: {item.path}")
        assets = {asset["name"]: asset for asset in self._call("GET", release["url"])["assets"]}
        for item in plan.upload:
            if item.path in assets:
                self._call("DELETE", assets.pop(item.path)["url"])
            staged = assets.pop(item.path + STAGED)
            self._call("PATCH", staged["url"], json={"name": item.path})
        kept = {item.path for item in plan.keep}
        for name in assets.keys() - kept:
            self._call("DELETE", assets[name]["url"])

    def _find(self) -> Any:
        page = 1
        while releases := self._call("GET", f"{self._releases}?per_page=100&page={page}"):
            for release in releases:
                if release["tag_name"] == self._tag:
                    return release
            page += 1
        return None

    def _upload(self, release: Any, item: Upload, name: str) -> None:
        for asset in self._call("GET", release["url"])["assets"]:
            if asset["name"] == name:  # what a failed attempt left
                self._call("DELETE", asset["url"])
        url = release["upload_url"].partition("{")[0]
        with item.source.open("rb") as file:
            asset = self._send(
                "POST", url, params={"name": name}, data=file if item.bytes else b"",
                headers={"Content-Type": "application/octet-stream"},
            ).json()  # fmt: skip
        headers = {"Accept": "application/octet-stream"}
        digest = hashlib.sha256()
        for chunk in self._send("GET", asset["url"], headers=headers, stream=True).iter_content(
            CHUNK
        ):
            digest.update(chunk)
        if digest.hexdigest() != item.sha256:
            raise DamagedTransferError("read back, it is not what was sent")

    def _call(self, method: str, url: str, **options: Any) -> Any:
        def call() -> Any:
            answer = self._send(method, url, **options)
            return answer.json() if answer.content else None

        return persist(f"{method} {url}", call)

    def _send(self, method: str, url: str, **options: Any) -> Any:
        """One request; failures of the network and the server are `OSError`."""
        answer = self._session.request(method, url, timeout=TIMEOUT, **options)
        if answer.status_code == TOO_MANY or answer.status_code >= SERVER_ERROR:
            raise OSError(f"{answer.status_code} {answer.reason}")
        if not answer.ok:
            raise InputError(f"{method} {url}: {answer.status_code} {answer.text[:200]}")
        return answer


def _assets(publication: VerifiedRelease) -> tuple[Upload, ...]:
    """Archives and the documents at the release's root: assets have no folders."""
    root = [item for item in publication.files if "/" not in item.path]
    return (*publication.below(ARCHIVES), *root)


def _complete(release: Any) -> dict[str, Any]:
    assets = release["assets"] if release else []
    return {asset["name"]: asset for asset in assets if asset["state"] == "uploaded"}


def _sha256(asset: Any) -> str | None:
    algorithm, _, digest = (asset.get("digest") or "").partition(":")
    return digest if algorithm == "sha256" else None
