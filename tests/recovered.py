"""Tiny checkpoints whose matrices lie on the grids that recovery.json names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from edgeproof.recovery import CalibrationText, Original, Recovery
from runtimes.weights.fused import parts
from tests.tiny import DTYPES, make_checkpoint, write_weights

BLOCK = 32
# Grid → the levels of its codes; IQ4_NL's are llama.cpp's kvalues_iq4nl.
LEVELS: dict[str, np.ndarray] = {
    "q4": np.arange(-8, 8),
    "q5": np.arange(-16, 16),
    "q8": np.arange(-127, 128),
    "iq4_nl": np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]),
}


def blocks(grid: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [count, 32] on a grid, exact products: some blocks are what rounding finds hard.

    Without their extreme code, with a negative scale, all zeros, with a scale below float16's
    normal numbers.
    """
    levels = LEVELS[grid]
    codes = levels[rng.integers(0, levels.size, (count, BLOCK))]
    middle = levels[np.abs(levels) <= np.abs(levels).max() / 2]
    codes[::3] = middle[rng.integers(0, middle.size, codes[::3].shape)]
    scales = 0.02 * rng.standard_normal(count) / np.abs(levels).max()
    scales[1::5] *= 2.0**-8
    scales[2::7] = 0
    return (codes * scales.astype(np.float16).astype(np.float32)[:, None]).astype(np.float32)


def make_recovered(
    folder: Path,
    grid_of: Callable[[str], str | None],
    *,
    dtype: str = "F32",
    record: bool = True,
    **changes: Any,
) -> Path:
    """A tiny checkpoint of which `grid_of` gives each matrix a grid, or None to leave it as it is.

    With `record` it has its recovery.json, which only a checkpoint in float32 can have.
    """
    make_checkpoint(folder, **changes)
    rng = np.random.default_rng(1)
    tensors, grids = load_file(folder / "model.safetensors"), {}
    for name, values in tensors.items():
        grid = grid_of(name) if values.ndim == 2 else None
        if grid is not None:
            grids |= dict.fromkeys(parts(name), grid)
            found = blocks(grid, values.size // BLOCK, rng)
            tensors[name] = found.reshape(values.shape)
        elif values.ndim == 1:
            tensors[name] = values.astype(np.float16).astype(np.float32)
    write_weights(folder, {name: v.astype(DTYPES[dtype]) for name, v in tensors.items()})
    if record:
        save_record(folder, grids)
    return folder


def save_record(folder: Path, grids: Mapping[str, str]) -> None:
    """A recovery.json with these grids."""
    text = CalibrationText("1" * 64, 4096)
    Recovery(Original("tiny", "0" * 64), grids, {"made": "for a test"}, text, {}).save(folder)


def mixed(name: str) -> str:
    """All four grids in one checkpoint."""
    if "embed" in name or "v_proj" in name:
        return "q5"
    kinds = {"q_proj": "iq4_nl", "k_proj": "q4", "o_proj": "q8", "down_proj": "q8"}
    return next((grid for kind, grid in kinds.items() if kind in name), "iq4_nl")


def four_or_eight(name: str) -> str:
    """As a recovery for ONNX: the embedding, v and some others in 8 bits."""
    return "q8" if any(kind in name for kind in ("embed", "v_proj", "layers.1.mlp")) else "q4"
