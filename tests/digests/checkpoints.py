"""Tiny checkpoints whose values are the same on every machine.

`tests.tiny` draws from NumPy, which leaves rare values to the C library's logarithm, and so to the
processor. Here they are sums of hashed integers: only exactly rounded steps.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.families import Parameter, read_config
from tests.tiny import DTYPES, LLAMA3_ROPE, QWEN2, QWEN3, config, write_tokenizer, write_weights

# Name → what differs from `config`; `dtype` and `shards` are of the weights' files.
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-untied-biases": {
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
        "rope_scaling": LLAMA3_ROPE,
    },
    "mistral": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": None,
        "head_dim": 32,
        "dtype": "F16",
    },
    "qwen2": QWEN2,
    "qwen3": {**QWEN3, "tie_word_embeddings": False, "dtype": "BF16", "shards": 2},
}
LAYERS = 2
# The sum of four hashed numbers below 1, less its mean, times this has a variance near 1.
SUM_OF = 4
NORMALISE = 1.75
FULL = 2.0**32


def write_checkpoint(folder: Path, name: str) -> Path:
    """One of `CHECKPOINTS`, in Hugging Face's layout."""
    changes = {"dtype": "F32", "shards": 1, "num_hidden_layers": LAYERS, **CHECKPOINTS[name]}
    dtype, shards = DTYPES[changes.pop("dtype")], changes.pop("shards")
    raw = config(**changes)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw, indent=2))
    write_tokenizer(folder)
    _, parameters = read_config(raw)
    tensors = {item.name: values(item).astype(dtype) for item in parameters}
    write_weights(folder, tensors, shards)
    return folder


def values(parameter: Parameter) -> np.ndarray:
    """A parameter's values, float32: bell-shaped, with rows that rounding finds difficult."""
    size = int(np.prod(parameter.shape))
    data = hashlib.shake_256(parameter.name.encode()).digest(4 * SUM_OF * size)
    hashed = np.frombuffer(data, "<u4").reshape(size, SUM_OF).astype(np.float64)
    bell = NORMALISE * (hashed.sum(axis=1) / FULL - SUM_OF / 2)
    if len(parameter.shape) == 1:
        centre = 0 if parameter.name.endswith(".bias") else 1
        return (centre + 0.125 * bell).astype(np.float32)
    matrix = (bell / 8).reshape(parameter.shape)
    matrix[0] = 0  # blocks without a scale
    matrix[1] = np.rint(matrix[1] * 16) / 16  # ties
    matrix[2] *= 2.0**-20  # subnormal in float16
    matrix[3] = -np.abs(matrix[3])  # one sign
    return matrix.astype(np.float32)
