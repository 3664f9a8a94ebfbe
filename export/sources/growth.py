"""Grow a decoder: a larger network that computes the same function, channel for channel.

Every axis gets a placement: which old channel each new one is, or none, for zeros. A channel of
zeros adds nothing where it is read, so only two things need care. RMSNorm divides by the mean over
all channels: with n of N in use, weights times √(n/N) and ε times n/N give the old result. A layer
more is a copy of the one before it that writes zeros to the residual stream. Old and new channels,
heads and layers are mixed, so that blocks of quantised weights hold both.

Invariants: every old value is in the new network exactly once, but for norms, which are scaled, and
the copies of layers; peak memory is that of one matrix of a layer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import Parameter, Role, read_config
from edgeproof.files.atomic import write_atomic
from export.axes import AXES, Axis
from export.checkpoint import Checkpoint
from export.checkpoint.safetensors_writer import PlannedTensor, write_safetensors
from export.sources.grown_shape import GrownShape
from export.sources.permutation import permutation
from export.targets import Target

FLOAT32 = np.dtype(np.float32)
SCALED = (Role.INPUT_NORM, Role.MLP_NORM, Role.FINAL_NORM)
# What writes to the residual stream: zeros in a layer that is one more.
WRITERS = (Role.OUTPUT, Role.OUTPUT_BIAS, Role.DOWN, Role.DOWN_BIAS)
NOTHING = -1  # in a placement: zeros


@dataclass(frozen=True)
class TensorOrigin:
    """Where one new tensor's values come from: `indices` per axis, None for "as it is"."""

    source: Parameter
    dtype: np.dtype[Any]
    indices: tuple[np.ndarray | None, ...]
    scale: float | None


def grow(checkpoint: Checkpoint, shape: GrownShape, seed: str, folder: Path) -> None:
    """Write the grown checkpoint into an empty folder: config, tokenizer files and weights.

    Norms become float32, everything else keeps its dtype.

    Raises:
        InputError: the checkpoint does not fit into the shape, or has a bad value.
    """
    raw = grown_config(checkpoint, shape)
    _, parameters = read_config(raw)
    placements = plan(checkpoint, shape, seed, parameters)
    text = json.dumps(raw, ensure_ascii=False, indent=1) + "\n"
    write_atomic(folder / "config.json", text.encode())
    for name, path in checkpoint.tokenizer_files.items():
        write_atomic(folder / name, path.read_bytes())
    planned = [PlannedTensor(p.name, placements[p.name].dtype, p.shape) for p in parameters]
    write_safetensors(
        folder / "model.safetensors", planned, lambda name: _blocks(checkpoint, placements[name])
    )


def grown_config(checkpoint: Checkpoint, shape: GrownShape) -> dict[str, Any]:
    """The config.json of the grown checkpoint.

    Raises:
        InputError: something would shrink, or the heads would share keys otherwise.
    """
    old = checkpoint.config
    for name in ("hidden", "intermediate", "layers", "heads", "kv_heads"):
        if getattr(old, name) > getattr(shape, name):
            raise InputError(
                f"{checkpoint.path}: {name} is {getattr(old, name)}, more than the"
                f" {getattr(shape, name)} it is to grow to"
            )
    if shape.heads * old.kv_heads != old.heads * shape.kv_heads:
        raise InputError(
            f"{checkpoint.path}: {old.heads} heads over {old.kv_heads} key/value heads cannot"
            f" become {shape.heads} over {shape.kv_heads}"
        )
    raw = {key: value for key, value in checkpoint.raw_config.items() if key != "layer_types"}
    return {
        **raw,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": old.head_dim,
        "rms_norm_eps": old.norm_eps * old.hidden / shape.hidden,
    }


def plan(
    checkpoint: Checkpoint, shape: GrownShape, seed: str, parameters: tuple[Parameter, ...]
) -> dict[str, TensorOrigin]:
    """A placement for each parameter of the grown network, by name; all follow from the seed."""
    old = checkpoint.config
    kv_heads = _mixed(old.kv_heads, shape.kv_heads, f"{seed}:heads")
    heads = _channels(kv_heads, old.heads // old.kv_heads)
    queries, keys = _channels(heads, old.head_dim), _channels(kv_heads, old.head_dim)
    indices = {
        Axis.STREAM: _mixed(old.hidden, shape.hidden, f"{seed}:stream"),
        **dict.fromkeys((Axis.QUERIES, Axis.MIXTURES), queries),
        **dict.fromkeys((Axis.KEYS, Axis.VALUES), keys),
        Axis.INNER: _mixed(old.intermediate, shape.intermediate, f"{seed}:inner"),
    }
    layers = layer_sources(old.layers, shape.layers)
    known = {(parameter.role, parameter.layer): parameter for parameter in checkpoint.parameters}
    nothing = np.full(shape.hidden, NOTHING)
    scale = math.sqrt(old.hidden / shape.hidden)
    placements = {}
    for parameter in parameters:
        layer, silent = (None, False) if parameter.layer is None else layers[parameter.layer]
        source = known[parameter.role, layer]
        found = [indices.get(axis) for axis in AXES[parameter.role]]
        if silent and parameter.role in WRITERS:
            found[0] = nothing
        normed = parameter.role in SCALED
        placements[parameter.name] = TensorOrigin(
            source,
            FLOAT32 if normed else checkpoint.stored_dtype(source.name),
            tuple(found),
            scale if normed else None,
        )
    return placements


def layer_sources(old: int, new: int) -> list[tuple[int, bool]]:
    """For each new layer the old one it is made from, and whether it is one more and silent.

    Those are spread over the depth; each comes after the layer that it copies.
    """
    more = {(2 * k + 1) * new // (2 * (new - old)) for k in range(new - old)}
    sources, next_layer = [], 0
    for layer in range(new):
        silent = layer in more
        sources.append((max(0, next_layer - 1) if silent else next_layer, silent))
        next_layer += not silent
    return sources


def _mixed(old: int, new: int, seed: str) -> np.ndarray:
    """Indices [new]: the old channels and `NOTHING`, in the seed's order."""
    order = permutation(new, seed)
    return np.where(order < old, order, NOTHING)


def _channels(groups: np.ndarray, size: int) -> np.ndarray:
    """Indices of groups as those of their members, `size` each."""
    members = groups[:, None] * size + np.arange(size)
    return np.where(groups[:, None] == NOTHING, NOTHING, members).reshape(-1)


def _blocks(checkpoint: Checkpoint, placement: TensorOrigin) -> Iterator[np.ndarray]:
    """The new tensor, streamed in blocks of rows where its rows stay as they are."""
    source, (rows, *rest) = placement.source, placement.indices
    plain = Target(source.name, (source,), source.shape)
    target = plain if rows is None else replace(plain, transform=lambda arrays: arrays[0])
    for block in checkpoint.blocks(target):
        grown = _placed(block, rows, 0)
        for axis, indices in enumerate(rest, 1):
            grown = _placed(grown, indices, axis)
        if placement.scale is not None:
            grown = grown.astype(np.float64) * placement.scale
        yield grown.astype(placement.dtype, copy=False)


def _placed(values: np.ndarray, indices: np.ndarray | None, axis: int) -> np.ndarray:
    if indices is None:
        return values
    placed = np.take(values, indices, axis)  # NOTHING takes the last one, which is cleared
    placed[(slice(None),) * axis + (indices == NOTHING,)] = 0
    return placed
