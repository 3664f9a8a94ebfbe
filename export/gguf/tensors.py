"""Bind the checkpoint's parameters to llama.cpp's tensors: names, order, rotary row order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import BIASES, DecoderConfig, Parameter
from edgeproof.families.context import in_llama_cpp
from edgeproof.families.rope import Llama3Scaling, LongScaling, divisors
from export.checkpoint import Checkpoint
from export.llamacpp.architectures import INSTEAD, architecture_of, check_structure
from export.llamacpp.tensors import (
    ROPE_FREQS,
    ROPE_LONG,
    ROPE_SHORT,
    rotary_heads,
    tensor_name,
)
from export.targets import Target, Transform, check_bound, stack_rows, with_norm_offset


def bind(checkpoint: Checkpoint) -> list[Target]:
    """Every tensor of the file, in the order of llama.cpp's converter.

    That order is the one of the safetensors headers, shards sorted by file name, after the divisors
    of the rotary frequencies.

    Raises:
        InputError: llama.cpp's graph of this family does not compute what the checkpoint does.
    """
    config = in_llama_cpp(checkpoint.config)
    _check_graph(config, checkpoint.parameters)
    parameters = {parameter.name: parameter for parameter in checkpoint.parameters}
    order = sorted(checkpoint.stored_order, key=lambda name: checkpoint.file_of(name).name)
    held: dict[str, list[Parameter]] = {}
    for name in order:
        held.setdefault(tensor_name(parameters[name]), []).append(parameters[name])
    targets = [*_rope_tables(config), *(_target(*item, config) for item in held.items())]
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
    if not architecture.long_rope and (
        config.rope.share != 1 or isinstance(config.rope.scaling, LongScaling)
    ):
        raise InputError(
            f"long or partial rope: llama.cpp's {architecture.name} has none; {INSTEAD}"
        )
    if isinstance(config.rope.scaling, Llama3Scaling) and not architecture.rope_freqs:
        raise InputError(
            f"rope scaling of type 'llama3': llama.cpp's {architecture.name} has none; {INSTEAD}"
        )


def _rope_tables(config: DecoderConfig) -> list[Target]:
    """Linear scaling is metadata; that of Llama 3 is a tensor, and long rope's are two."""
    scaling = config.rope.scaling
    tables: dict[str, np.ndarray] = {}
    if isinstance(scaling, Llama3Scaling):
        tables = {ROPE_FREQS: divisors(config.head_dim, config.rope.theta, scaling)}
    if isinstance(scaling, LongScaling):
        pairs = ((ROPE_LONG, scaling.long), (ROPE_SHORT, scaling.short))
        tables = {name: np.array(values, np.float32) for name, values in pairs}
    return [_derived(name, values) for name, values in tables.items()]


def _derived(name: str, values: np.ndarray) -> Target:
    return Target(name, (), values.shape, lambda arrays: values)


def _target(name: str, sources: Sequence[Parameter], config: DecoderConfig) -> Target:
    first = sources[0]
    if len(sources) > 1:
        shape = (sum(source.shape[0] for source in sources), *first.shape[1:])
        return Target(name, tuple(sources), shape, stack_rows)
    heads = rotary_heads(first, config)
    transform = interleave_rotary_rows(heads) if heads else None
    return with_norm_offset(Target(name, (first,), first.shape, transform), config.structure)


def interleave_rotary_rows(heads: int) -> Transform:
    """Reorder rows [heads × head_dim, …] from rotary halves to rotary pairs."""

    def transform(arrays: Sequence[np.ndarray]) -> np.ndarray:
        (rows,) = arrays
        halves = rows.reshape(heads, 2, -1, *rows.shape[1:])  # [heads, half, head_dim / 2, …]
        return np.asarray(halves.swapaxes(1, 2).reshape(rows.shape))

    return transform
