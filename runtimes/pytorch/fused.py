"""Modules of transformers that hold several linear layers, shown as those layers.

Outside of this package every linear layer has a name of its own, as `runtimes.weights` reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from runtimes.weights.fused import Heads, parts, split

HOLDERS = (".self_attn.qkv_proj", ".mlp.gate_up_proj")


def heads_of(model: Any) -> Heads | None:
    """Attention dimensions of a transformers model; None where its config names none."""
    try:
        return Heads.of(model.config.to_dict())
    except (KeyError, TypeError):
        return None


def held(module: str) -> list[str]:
    """The modules that are in a module: most often it alone."""
    if not module.endswith(HOLDERS):
        return [module]
    return [part.removesuffix(".weight") for part in parts(f"{module}.weight")]


def named(parameter: str) -> list[str]:
    """The parameters that are in a parameter."""
    module, dot, kind = parameter.rpartition(".")
    return [f"{part}{dot}{kind}" for part in held(module)]


def apart(name: str, values: np.ndarray, heads: Heads | None) -> Iterator[tuple[str, np.ndarray]]:
    """A parameter's parts by name: views of its rows.

    Raises:
        InputError: the rows are not what the heads ask for.
    """
    if len(named(name)) == 1:
        yield name, values
    else:
        yield from split(name, values, heads)


def columns(name: str, rows: np.ndarray, heads: Heads | None) -> Iterator[tuple[str, np.ndarray]]:
    """What each module in a module gives, of all its results [T, width]."""
    for part, found in apart(f"{name}.weight", rows.T, heads):
        yield part.removesuffix(".weight"), found.T


def fill(
    name: str, parameter: np.ndarray, tensors: Mapping[str, np.ndarray], heads: Heads | None
) -> None:
    """Copy tensors into a parameter that holds them.

    Raises:
        InputError: one is misshapen.
    """
    for part, rows in apart(name, parameter, heads):
        values = tensors[part]
        if values.shape != rows.shape:
            raise InputError(f"{part}: shape {list(values.shape)}, expected {list(rows.shape)}")
        np.copyto(rows, values)
