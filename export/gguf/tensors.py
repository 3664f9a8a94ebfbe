"""Bind the checkpoint's parameters to llama.cpp's tensors: names, order, rotary row order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.architecture import DecoderConfig, Parameter, Target, check_bound
from export.architecture.mapping import Transform
from export.checkpoint import Checkpoint
from export.llamacpp.tensors import rotary_heads, tensor_name


def bind(checkpoint: Checkpoint) -> list[Target]:
    """Every tensor of the file, in the order of llama.cpp's converter.

    That order is the one of the safetensors headers, shards sorted by file name.
    """
    parameters = {parameter.name: parameter for parameter in checkpoint.parameters}
    order = sorted(checkpoint.stored_order, key=lambda name: checkpoint.file_of(name).name)
    targets = [_target(parameters[name], checkpoint.config) for name in order]
    check_bound(targets, checkpoint.parameters)
    return targets


def _target(parameter: Parameter, config: DecoderConfig) -> Target:
    heads = rotary_heads(parameter, config)
    return Target(
        name=tensor_name(parameter),
        sources=(parameter,),
        shape=parameter.shape,
        transform=interleave_rotary_rows(heads) if heads else None,
    )


def interleave_rotary_rows(heads: int) -> Transform:
    """Reorder rows [heads × head_dim, in] from rotary halves to rotary pairs.

    Hugging Face rotates channel i of a head with i + head_dim/2, llama.cpp's Llama graph rotates 2i
    with 2i + 1.
    """

    def transform(arrays: Sequence[np.ndarray]) -> np.ndarray:
        (rows,) = arrays
        halves = rows.reshape(heads, 2, -1, rows.shape[1])  # [heads, half, head_dim / 2, in]
        return np.asarray(halves.swapaxes(1, 2).reshape(rows.shape))

    return transform
