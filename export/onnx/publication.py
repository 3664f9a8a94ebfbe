"""How ONNX exports are published: all variants in one repository, in transformers.js's layout.

Their `config.json`s become one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError
from edgeproof.json_text import parse_json
from export.publication import Content, Publication, Released, Repository, recommended, repository

CONFIG = "config.json"
# transformers.js's own section of config.json: each variant adds its entries to these tables.
JS_CONFIG = "transformers.js_config"
JS_TABLES = ("use_external_data_format", "kv_cache_dtype")
# ONNX Runtime GenAI reads one such file per folder: the recommended variant's.
GENAI = "genai_config.json"


def _layout(released: Sequence[Released]) -> Iterator[Repository]:
    configs = [_json(item.artifact.path / CONFIG) for item in released]
    merged: dict[str, Content] = {CONFIG: _merged_config(released, configs)}
    with_genai = [item for item in released if (item.artifact.path / GENAI).is_file()]
    if with_genai:
        merged[GENAI] = recommended(with_genai).artifact.path / GENAI
    yield repository(released, "ONNX", merged)


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
        value = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; export it again")
    return value


PUBLICATION = Publication(
    layout=_layout,
    merged=(CONFIG, GENAI),
    title="ONNX",
    library="transformers.js",
    tags=("onnx", "transformers.js", "webgpu"),
    file=re.compile(r"onnx/[^/]+\.onnx"),
    usage=lambda: Path(__file__).with_name("usage.md.j2").read_text("utf-8"),
)
