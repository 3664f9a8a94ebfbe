"""Norms that multiply with 1 + weight: what a file stores of them is that sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import Role, read_config

OUT_NORMS = (Role.ATTENTION_OUT_NORM, Role.MLP_OUT_NORM)


def norm_offsets(config: Mapping[str, Any]) -> dict[str, float]:
    """Parameter → what its norm adds to it; those of no norm with an offset are not in it.

    Nothing of a config that no family here reads.
    """
    try:
        decoder, parameters = read_config(config)
    except InputError:
        return {}
    norms = decoder.structure.norms
    found = {item.name: norms[item.role].offset for item in parameters if item.role in norms}
    return {name: offset for name, offset in found.items() if offset}


def out_norms(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The weights of norms after attention and MLP, whose results the residual stream takes."""
    try:
        _, parameters = read_config(config)
    except InputError:
        return ()
    return tuple(item.name for item in parameters if item.role in OUT_NORMS)


def same(values: np.ndarray, others: np.ndarray, offset: float) -> bool:
    """Whether two float32 weights are equal; of a norm, whether what it multiplies with is."""
    if offset:
        values, others = (np.float32(offset) + array for array in (values, others))
    return bool(np.array_equal(values, others))
