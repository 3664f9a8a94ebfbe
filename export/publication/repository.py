"""A repository as it is published: which files of which variants, under which paths.

`edgeproof/<variant>.json` are the artifacts' own manifests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeproof.artifact import MANIFEST
from edgeproof.errors import InputError
from export.publication.released import Released

UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

# What a file is made of: a file of an artifact, or bytes.
Content = Path | bytes


@dataclass(frozen=True)
class Repository:
    """A folder to publish: POSIX path → content; `files` has no card yet.

    `own` names the files that belong to one variant only, by variant.
    """

    name: str
    format: str
    released: tuple[Released, ...]
    files: dict[str, Content]
    own: dict[str, tuple[str, ...]]


def safe_name(name: str) -> str:
    """A model's name, fit for folders, URLs and hub ids."""
    return UNSAFE.sub("-", name).strip(".-") or "model"


def repository(
    released: Sequence[Released], suffix: str, merged: Mapping[str, Content]
) -> Repository:
    """`<model>-<suffix>` with all files of the variants, which are of one format.

    `merged` replaces those that every variant has of its own.

    Raises:
        InputError: two variants write one file differently.
    """
    owners: dict[str, Released] = {}
    users: dict[str, list[str]] = {}
    files: dict[str, Content] = {}
    for item in released:
        variant = item.compared.variant
        digests = {output.path: output.sha256 for output in item.artifact.manifest.outputs}
        for path, digest in digests.items():
            users.setdefault(path, []).append(variant)
            first = owners.setdefault(path, item)
            if path not in merged and _digest(first, path) != digest:
                raise InputError(
                    f"{first.compared.name} and {item.compared.name} both write {path}, and"
                    " differently; --exclude one of them"
                )
            files[path] = first.artifact.path / path
        own = f"edgeproof/{variant}.json"
        files[own] = item.artifact.path / MANIFEST
        users[own] = [variant]
    files |= {path: content for path, content in merged.items() if path in files}
    return Repository(
        name=f"{safe_name(released[0].artifact.manifest.model.name)}-{suffix}",
        format=released[0].compared.format,
        released=tuple(released),
        files=dict(sorted(files.items())),
        own={
            item.compared.variant: tuple(
                sorted(path for path, names in users.items() if names == [item.compared.variant])
            )
            for item in released
        },
    )


def _digest(item: Released, path: str) -> str:
    return next(out.sha256 for out in item.artifact.manifest.outputs if out.path == path)
