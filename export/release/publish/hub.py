"""`hub:name`: every repository of the release as name/<repository>, in one commit each.

`hub:name/repository` publishes one: of that name, or the only one there is. A commit is atomic, and
the hub compares every large file with its SHA-256 before. A repository that is new is private until
it was read back, and stays so unless the release is to be public.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError
from export.release.publish.plan import PublishPlan, Say, Upload, VerifiedRelease
from export.release.publish.retries import SERVER_ERROR, TOO_MANY, persist

MAIN = "main"
# The hub's own, which no release has.
ATTRIBUTES = ".gitattributes"


class Hub:
    """The hub of HF_ENDPOINT, as the user of HF_TOKEN or `hf auth login`."""

    def __init__(self, publication: VerifiedRelease, address: str) -> None:
        from huggingface_hub import HfApi

        self._api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        self._title = f"{publication.name} (edgeproof {publication.record['edgeproof']})"
        self._public = publication.public
        names = [item["name"] for item in publication.record["repositories"]]
        self._uploads = {
            repo: publication.below(name) for repo, name in _repositories(address, names).items()
        }

    def plans(self) -> list[PublishPlan]:
        """Compare with what is on `main`; a repository that is not there is empty."""
        return [self._plan(repo) for repo in self._uploads]

    def _plan(self, repo: str) -> PublishPlan:
        there = self._there(repo, MAIN)
        files = self._uploads[repo]
        keep = tuple(item for item in files if _same(item, there.get(item.path)))
        extra = there.keys() - {item.path for item in files} - {ATTRIBUTES}
        upload = tuple(item for item in files if item not in keep)
        return PublishPlan(repo, upload, keep, tuple(sorted(extra)))

    def carry_out(self, plan: PublishPlan, say: Say) -> None:
        """One commit, read back; a new repository becomes public after that."""
        repo = plan.place
        if not self._try(repo, lambda: self._api.repo_exists(repo)):
            self._try(repo, lambda: self._api.create_repo(repo, private=True, exist_ok=True))
        if not plan.nothing:
            commit = self._try(repo, lambda: self._commit(plan))
            self._read_back(repo, commit)
            for item in plan.upload:
                say(f"uploaded: {repo}/{item.path}")
        if self._public:
            self._try(repo, lambda: self._api.update_repo_settings(repo, private=False))

    def _commit(self, plan: PublishPlan) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        add = [CommitOperationAdd(item.path, str(item.source)) for item in plan.upload]
        delete = [CommitOperationDelete(path) for path in plan.remove]
        info = self._api.create_commit(plan.place, [*add, *delete], commit_message=self._title)
        return str(info.oid)

    def _read_back(self, repo: str, commit: str) -> None:
        there = self._there(repo, commit)
        for item in self._uploads[repo]:
            if not _same(item, there.get(item.path)):
                raise InputError(f"{repo}/{item.path}: not on the hub as it was sent; run again")

    def _there(self, repo: str, revision: str) -> dict[str, Any]:
        from huggingface_hub import RepoFile
        from huggingface_hub.errors import RepositoryNotFoundError

        def listing() -> dict[str, Any]:
            try:
                tree = list(self._api.list_repo_tree(repo, recursive=True, revision=revision))
            except RepositoryNotFoundError:
                return {}
            return {item.path: item for item in tree if isinstance(item, RepoFile)}

        there: dict[str, Any] = self._try(repo, listing)
        return there

    def _try(self, what: str, call: Callable[[], Any]) -> Any:
        """The call's result; what the hub refuses (4xx) is not tried again."""
        from huggingface_hub.errors import HfHubHTTPError

        def guarded() -> Any:
            try:
                return call()
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status < SERVER_ERROR and status != TOO_MANY:
                    reason = " ".join(str(error).split())
                    raise InputError(f"hub {what}: {reason}; is HF_TOKEN right?") from None
                raise

        return persist(f"hub {what}", guarded, (HfHubHTTPError, OSError, RuntimeError))


def _repositories(address: str, names: list[str]) -> dict[str, str]:
    """Repository on the hub → the release's."""
    owner, slash, wanted = address.partition("/")
    if not slash:
        return {f"{owner}/{name}": name for name in names}
    if wanted in names:
        return {address: wanted}
    if len(names) > 1:
        raise InputError(
            f"hub:{address}: the release has {', '.join(names)}; publish to hub:{owner} or name one"
        )
    return {address: names[0]}


def _same(item: Upload, there: Any) -> bool:
    """By SHA-256 where the hub keeps the file as a large one, else by git's own hash."""
    if there is None or there.size != item.bytes:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == item.sha256)
    return bool(there.blob_id == _git_blob(item.source))


def _git_blob(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
