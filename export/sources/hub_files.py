"""Single files of a repository of the hub, as any maker published them, in a folder of the cache.

Invariant: nothing that is fetched is ever run or unpickled; no name leads out of the folder; all
files of a folder are of one commit, and none is a link, symbolic or hard: onnx and ONNX Runtime
refuse these as external data.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from edgeproof.errors import InputError
from edgeproof.files.atomic import storage_errors
from edgeproof.files.cache import cache_folder, keep, usable
from edgeproof.files.own import WrongJsonError, json_object, typed
from export.sources.hub import reached

KIND = "hub-files"  # of the cache
HINT = "or download the file and name its path"
# What can run code where something loads it: no model of a format that is audited is one.
NEVER = (".py", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Listing:
    """A commit's hash, the names of its files (POSIX), and the repository's tags."""

    commit: str
    files: tuple[str, ...]
    tags: tuple[str, ...] = ()


def listing(repo: str, revision: str | None) -> Listing:
    """What `org/name` has at a branch, tag or commit (default: main).

    Where HF_HUB_OFFLINE is set, what it had when it was last asked for.

    Raises:
        InputError: no network, no such repository or revision, no access.
    """
    kept = _place(repo) / "listings" / f"{quote(revision or '', safe='')}.json"
    found = reached(repo, revision, lambda: _list(repo, revision, kept), HINT)
    keep(kept, json.dumps(asdict(found)).encode())
    if COMMIT.fullmatch(found.commit) is None:
        raise InputError(f"{repo}: the hub names no commit for it ({found.commit[:80]!r})")
    return replace(found, files=tuple(name for name in found.files if _inside(name)))


def fetch(repo: str, commit: str, names: Sequence[str]) -> Path:
    """A folder with these files of a commit; it has those of earlier calls too.

    Raises:
        InputError: no network, a file that is not there, one that is never fetched, or no commit.
    """
    if COMMIT.fullmatch(commit) is None:
        raise InputError(f"{repo}: {commit!r} is no commit's hash; a branch may move meanwhile")
    for name in names:
        if not _inside(name) or name.lower().endswith(NEVER):
            raise InputError(f"{repo}/{name}: never fetched: it can run code, or leads elsewhere")
    place = _place(repo) / commit
    # A folder that goes with this process would not be found by the one that has asked for it.
    into = place if usable(place) == place else None
    found = place
    for name in names:
        if into is None or not (place / name).is_file():
            file = reached(repo, commit, partial(_download, repo, commit, name, into), HINT)
            found = file.parents[len(PurePosixPath(name).parts) - 1]
    return found


def _inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and "\\" not in name and ":" not in name
    return plain and bool(parts) and not name.startswith("/") and ".." not in parts


def _place(repo: str) -> Path:
    return cache_folder() / KIND / repo.replace("/", "--")


def _list(repo: str, revision: str | None, kept: Path) -> Listing:
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        with contextlib.suppress(OSError, WrongJsonError):
            return typed(Listing, json_object(kept.read_bytes()))
    info = HfApi().model_info(repo, revision=revision)
    names = sorted(item.rfilename for item in info.siblings or ())
    return Listing(str(info.sha), tuple(names), tuple(map(str, info.tags or ())))


def _download(repo: str, commit: str, name: str, into: Path | None) -> Path:
    """Into a folder, as files of its own; else into the library's cache."""
    from huggingface_hub import hf_hub_download

    if into is None:
        return Path(hf_hub_download(repo, name, revision=commit))
    with storage_errors(into):
        into.mkdir(parents=True, exist_ok=True)
        return Path(hf_hub_download(repo, name, revision=commit, local_dir=into))
