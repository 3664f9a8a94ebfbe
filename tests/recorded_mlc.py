"""Two small deterministic checkpoints, and the MD5 of their shard in every MLC scheme.

The sums were not made by this project: nine schemes are those of a NumPy writer that was compared
with mlc_llm bit for bit on real weights, q4bf16_1 is that writer with TVM's rounding
(`tests.mlc_reference`), where mlc_llm's own bytes could not be reproduced.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.tiny import make_checkpoint, write_weights


def whole_group_checkpoint(folder: Path) -> Path:
    """Rows of 64 and 160: whole 4-bit groups; a tail in 3-bit ones."""
    return _filled(make_checkpoint(folder, num_hidden_layers=1))


def tail_checkpoint(folder: Path) -> Path:
    """Rows of 72 and 100, no multiple of any group; zero, tiny and huge groups."""
    make_checkpoint(folder, num_hidden_layers=1, hidden_size=72, intermediate_size=100)
    _filled(folder)
    tensors = {k: v.copy() for k, v in load_file(folder / "model.safetensors").items()}
    embedding = tensors["model.embed_tokens.weight"]
    embedding[0] = 0
    embedding[1] *= 2.0**-24
    embedding[2] *= 2.0**-14
    embedding[3] *= 80_000
    tensors["model.layers.0.mlp.down_proj.weight"][:, 96:] = 0
    write_weights(folder, tensors)
    return folder


def _filled(folder: Path) -> Path:
    tensors = {
        name: ((np.arange(value.size) * 37 % 101 - 50) / 64).astype(np.float32).reshape(value.shape)
        for name, value in load_file(folder / "model.safetensors").items()
    }
    write_weights(folder, tensors)
    return folder


# Of the checkpoint with whole groups, and of the one with tails. Values of the former are multiples
# of 1/64, exact in bfloat16, so three pairs of schemes agree there.
MD5 = {
    "q0f16": ("52ce1d34781a8cdaef014860978bac69", "8c05ae73a1b1169557dcb69146688e5e"),
    "q0f32": ("07804b16c4e6db7984618bc8bedc9264", "6bcfab2cfaea1ba160dc01b2bf86b20b"),
    "q0bf16": ("07804b16c4e6db7984618bc8bedc9264", "6bcfab2cfaea1ba160dc01b2bf86b20b"),
    "q4f16_0": ("f2a0b9ee16723462e49ffc7dcf303155", "92d8ba5124a498be53ea943e30f24865"),
    "q4f16_1": ("e8085d2c969a548fe7699de4c289e0de", "72e0ada1267f40e7c5d893557cca6d8b"),
    "q4f16_2": ("8a40e7044d02dab382aa41b625aca7c4", "2c7155cc6a355e531966636bbf66ae33"),
    "q4f32_1": ("06664a03381615d90d8133a9198c8d55", "42c891524602f04e49065f9d4e51885b"),
    "q4bf16_1": ("06664a03381615d90d8133a9198c8d55", "ee97c8ec9b754ed031aa23f0621d3979"),
    "q3f16_0": ("69d1321dc0ea9bf0a9e909e76bc82310", "963d9d9f82dcd2799185edca364424cb"),
    "q3f16_1": ("5db75e4fdef9dd9f5c70db0385883aee", "47a5e7208f007285974412884d9294c4"),
}
