"""Which files go into which repository, per format: the layouts that the hub's users expect.

* ONNX: all variants in one repository, transformers.js's layout; their `config.json`s become one.
* GGUF: all files in one repository.
* MLC: a repository per scheme, since the folder is what WebLLM is pointed at.

`edgeproof/<variant>.json` are the artifacts' own manifests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproof.artifact import MANIFEST
from edgeproof.errors import InputError
from export.release.selection import Released

CONFIG = "config.json"
# transformers.js's own section of config.json: each variant adds its entries to these tables.
JS_CONFIG = "transformers.js_config"
JS_TABLES = ("use_external_data_format", "kv_cache_dtype")
# ONNX Runtime GenAI reads one such file per folder: the recommended variant's.
GENAI = "genai_config.json"
# Written anew for a repository with several variants.
MERGED = (CONFIG, GENAI)
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


def recommended(released: Sequence[Released]) -> Released:
    """The smallest that passes; where none does, the largest: it is nearest to the original."""
    passing = [item for item in released if item.passed]
    if passing:
        return min(passing, key=lambda item: item.bytes)
    return max(released, key=lambda item: item.bytes)


def repositories(released: Sequence[Released]) -> list[Repository]:
    """Lay out every repository, in the order of formats.

    Raises:
        InputError: two variants claim one file, or an unknown format.
    """
    result: list[Repository] = []
    for name in dict.fromkeys(item.compared.format for item in released):
        if name not in LAYOUTS:
            raise InputError(f"{name}: no repository layout; choose from {', '.join(LAYOUTS)}")
        result += LAYOUTS[name]([item for item in released if item.compared.format == name])
    return result


def _onnx(released: Sequence[Released]) -> Iterator[Repository]:
    configs = [_json(item.artifact.path / CONFIG) for item in released]
    merged: dict[str, Content] = {CONFIG: _merged_config(released, configs)}
    with_genai = [item for item in released if (item.artifact.path / GENAI).is_file()]
    if with_genai:
        merged[GENAI] = recommended(with_genai).artifact.path / GENAI
    yield _repository(released, "ONNX", merged)


def _gguf(released: Sequence[Released]) -> Iterator[Repository]:
    yield _repository(released, "GGUF", {})


def _mlc(released: Sequence[Released]) -> Iterator[Repository]:
    for item in released:
        yield _repository([item], f"{item.compared.variant}-MLC", {})


LAYOUTS: dict[str, Callable[[Sequence[Released]], Iterator[Repository]]] = {
    "onnx": _onnx,
    "gguf": _gguf,
    "mlc": _mlc,
}


def _repository(
    released: Sequence[Released], suffix: str, merged: dict[str, Content]
) -> Repository:
    """All files of the variants; `merged` replaces those that every variant has of its own."""
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


def _merged_config(released: Sequence[Released], configs: Sequence[dict[str, Any]]) -> bytes:
    base = dict(configs[0])
    section = dict(base.get(JS_CONFIG, {}))
    for item, config in zip(released, configs, strict=True):
        for key in sorted({*base, *config} - {JS_CONFIG}):
            if base.get(key) != config.get(key):
                raise InputError(
                    f"{item.artifact.path / CONFIG}: {key} is not as in"
                    f" {released[0].artifact.path / CONFIG}; --exclude one of them"
                )
        for table in JS_TABLES:
            section[table] = {**section.get(table, {}), **config.get(JS_CONFIG, {}).get(table, {})}
    return (json.dumps({**base, JS_CONFIG: section}, indent=2, ensure_ascii=False) + "\n").encode()


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; export it again")
    return value
