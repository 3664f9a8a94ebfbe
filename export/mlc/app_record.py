"""webllm-model.json: what a WebLLM page needs to offer the model.

The file is an `AppConfig` with one entry of `model_list`. Source of its fields: web-llm
`src/config.ts`, `ModelRecord`; of the memory it states: `utils/vram_requirements`, which adds the
parameters, the KV cache and the temporaries of the greediest function.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from edgeproof.artifact import Variant
from edgeproof.families import DecoderConfig
from export.mlc.model_library import ModelLibrary
from export.mlc.schemes import Scheme
from export.mlc.shards import StoredArray
from export.rounding.cast import BFLOAT16, FLOAT16

FILE = "webllm-model.json"
# What WebLLM's own records take: longer contexts cost memory that few browsers have.
CONTEXT = 4096
# What WebLLM's own libraries are compiled with.
PREFILL_CHUNK = 1024
MEBI = 1 << 20
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def mlc_name(model: str, variant: Variant[Any]) -> str:
    """MLC's own naming of folders and models: <Model>-<scheme>-MLC, fit for a URL."""
    return f"{UNSAFE.sub('-', model)}-{variant.name}-MLC"


def library_file(identifier: str) -> str:
    """The name of the model library beside the weights."""
    return f"{identifier.removesuffix('-MLC')}-webgpu.wasm"


def runs_in_webllm(scheme: Scheme) -> bool:
    """WebGPU has no bfloat16."""
    return bool(scheme.dtype != BFLOAT16)


def app_config(
    identifier: str,
    config: DecoderConfig,
    scheme: Scheme,
    arrays: Iterable[StoredArray],
    library: ModelLibrary | None,
    url: str | None,
) -> bytes:
    """The JSON text.

    Args:
        identifier: the model's id in WebLLM.
        config: the model's dimensions.
        scheme: of its weights.
        arrays: the stored parameters.
        library: the model library beside the weights, if there is one.
        url: where the folder will be served; by default a path relative to the page.
    """
    base = url or identifier
    facts = None if library is None else library.facts
    context = min(config.max_positions, CONTEXT, facts.context if facts else CONTEXT)
    sizes = [array.loaded_bytes for array in arrays]
    cache = cache_bytes(config, scheme, context)
    temporary = facts.temporary_bytes if facts else temporary_bytes(config, scheme)
    record: dict[str, Any] = {"model": base, "model_id": identifier}
    if library is not None:
        record["model_lib"] = f"{_files(base)}{library_file(identifier)}"
    record["vram_required_MB"] = round((sum(sizes) + cache + temporary) / MEBI, 2)
    record["buffer_size_required_bytes"] = max(*sizes, cache // config.layers)
    if scheme.dtype == FLOAT16:
        record["required_features"] = ["shader-f16"]
    record["overrides"] = {"context_window_size": context}
    return (json.dumps({"model_list": [record]}, indent=2) + "\n").encode()


def cache_bytes(config: DecoderConfig, scheme: Scheme, context: int) -> int:
    """Keys and values of all layers in the model dtype."""
    per_position = 2 * config.layers * config.kv_heads * config.head_dim
    return per_position * context * scheme.dtype.itemsize


def temporary_bytes(config: DecoderConfig, scheme: Scheme) -> int:
    """What mlc_llm plans for a prefill chunk: the feed-forward's values, and the hidden states."""
    per_position = 4 * config.intermediate + config.hidden
    return min(config.max_positions, PREFILL_CHUNK) * per_position * scheme.dtype.itemsize


def _files(url: str) -> str:
    """The URL of the folder's files: WebLLM appends the hub's path where there is none."""
    folder = url if url.endswith("/") else f"{url}/"
    return folder if "/resolve/" in folder else f"{folder}resolve/main/"
