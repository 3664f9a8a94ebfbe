"""Checkpoints of every family in published sizes; their values mean nothing."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgeproof.checkpoints.tokenizer import TOKENIZER_FILES
from edgeproof.families import read_config
from export.sources import resolve
from tests.tiny import GEMMA3, GRANITE, OLMO2, PHI3, QWEN2, QWEN3, SMOLLM3, config, write_tokenizer

# SmolLM2-135M and -360M, SmolLM-1.7B, Phi-4-mini (3.8B, with a large vocabulary), Llama 3 8B.
SHAPES: dict[str, dict[str, int]] = {
    "135M": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152,
    },
    "360M": {
        "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32,
        "num_attention_heads": 15, "num_key_value_heads": 5, "head_dim": 64, "vocab_size": 49152,
    },
    "1.7B": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
        "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 64, "vocab_size": 49152,
    },
    "4B": {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 200064,
    },
    "8B": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256,
    },
}  # fmt: skip
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {}, "mistral": MISTRAL, "qwen2": QWEN2, "qwen3": QWEN3, "olmo2": OLMO2,
    "smollm3": SMOLLM3, "granite": GRANITE, "phi3": PHI3, "gemma3_text": GEMMA3,
}  # fmt: skip
PATTERN = 1 << 20  # random values; they repeat
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def settings(family: str, shape: str, **changes: Any) -> dict[str, Any]:
    """config.json of a family in the size of a shape; what follows from a head's size follows."""
    raw = config(**{**FAMILIES[family], **SHAPES[shape], **changes}, torch_dtype="bfloat16")
    scaling = raw.get("rope_scaling") or {}
    pairs = int(raw["head_dim"] * raw.get("partial_rotary_factor", 1)) // 2
    tables = {
        key: [1.0 + i / pairs for i in range(pairs)] for key in scaling if key.endswith("_factor")
    }
    if tables:
        raw["rope_scaling"] = {**scaling, **tables}
    if "query_pre_attn_scalar" in raw:
        raw["query_pre_attn_scalar"] = raw["head_dim"]
    return raw


def make_shape(folder: Path, family: str, shape: str, *, sparse: bool, **changes: Any) -> int:
    """Write a bfloat16 checkpoint of one file; the number of its weights.

    `changes` are of config.json. With `sparse` all weights are zeros that take no room on the
    disk: enough for types that are not rounded in blocks.
    """
    folder.mkdir(parents=True)
    raw = settings(family, shape, **changes)
    (folder / "config.json").write_text(json.dumps(raw), "utf-8")
    write_tokenizer(folder)
    _, parameters = read_config(raw)
    shapes: dict[str, tuple[int, ...]] = {}
    for parameter in parameters:  # those within one tensor are its rows
        name = parameter.within or parameter.name
        held = shapes.get(name, (0, *parameter.shape[1:]))
        shapes[name] = (held[0] + parameter.shape[0], *parameter.shape[1:])
    _write(folder / "model.safetensors", shapes, sparse=sparse)
    return sum(map(math.prod, shapes.values()))


def copy_tokenizer(folder: Path) -> None:
    """Give a checkpoint the bundled model's tokenizer in place of its own."""
    source = resolve("bundled").path
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)


def _write(path: Path, shapes: dict[str, tuple[int, ...]], *, sparse: bool) -> None:
    """A safetensors file of bfloat16 tensors, one of them in memory at a time."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + BFLOAT16.itemsize * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (start, end)}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    values = np.random.default_rng(0).normal(0, 0.02, PATTERN).astype(BFLOAT16)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        if sparse:
            file.truncate(8 + len(head) + end)
            return
        for shape in shapes.values():
            file.write(np.resize(values, math.prod(shape)).tobytes())
