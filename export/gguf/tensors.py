"""Bind the checkpoint's parameters to llama.cpp's tensors: names, order, rotary row order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import BIASES, DecoderConfig, Parameter
from edgeproof.families.rope import Llama3Scaling, divisors
from export.checkpoint import Checkpoint
from export.llamacpp.architectures import INSTEAD, architecture_of, check_structure
from export.llamacpp.tensors import ROPE_FREQS, rotary_heads, tensor_name
from export.targets import Target, Transform, check_bound, with_norm_offset


def bind(checkpoint: Checkpoint) -> list[Target]:
    """Every tensor of the file, in the order of llama.cpp's converter.

    That order is the one of the safetensors headers, shards sorted by file name, after the divisors
    of the rotary frequencies.

    Raises:
        InputError: llama.cpp's graph of this family does not compute what the checkpoint does.
    """
    config = checkpoint.config
    _check_graph(config, checkpoint.parameters)
    parameters = {parameter.name: parameter for parameter in checkpoint.parameters}
    order = sorted(checkpoint.stored_order, key=lambda name: checkpoint.file_of(name).name)
    targets = [*_rope_freqs(config), *(_target(parameters[name], config) for name in order)]
    check_bound(targets, checkpoint.parameters)
    return targets


def _check_graph(config: DecoderConfig, parameters: Sequence[Parameter]) -> None:
    architecture = architecture_of(config)
    check_structure(config)
    biases = set(BIASES.values()) - architecture.biases
    for parameter in parameters:
        if parameter.role in biases:
            raise InputError(
                f"tensor {parameter.name}: llama.cpp's {architecture.name} has no such bias;"
                f" {INSTEAD}"
            )
    if isinstance(config.rope.scaling, Llama3Scaling) and not architecture.rope_freqs:
        raise InputError(
            f"rope scaling of type 'llama3': llama.cpp's {architecture.name} has none; {INSTEAD}"
        )


def _rope_freqs(config: DecoderConfig) -> list[Target]:
    """Linear scaling is metadata; that of Llama 3 is a tensor."""
    scaling = config.rope.scaling
    if not isinstance(scaling, Llama3Scaling):
        return []
    values = divisors(config.head_dim, config.rope.theta, scaling)
    return [Target(ROPE_FREQS, (), values.shape, lambda arrays: values)]


def _target(parameter: Parameter, config: DecoderConfig) -> Target:
    heads = rotary_heads(parameter, config)
    target = Target(
        name=tensor_name(parameter),
        sources=(parameter,),
        shape=parameter.shape,
        transform=interleave_rotary_rows(heads) if heads else None,
    )
    return with_norm_offset(target, config.structure)


def interleave_rotary_rows(heads: int) -> Transform:
    """Reorder rows [heads × head_dim, …] from rotary halves to rotary pairs."""

    def transform(arrays: Sequence[np.ndarray]) -> np.ndarray:
        (rows,) = arrays
        halves = rows.reshape(heads, 2, -1, *rows.shape[1:])  # [heads, half, head_dim / 2, …]
        return np.asarray(halves.swapaxes(1, 2).reshape(rows.shape))

    return transform
