"""What a recovered model takes in a format's files: bits of each grid, and what is beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families import Parameter
from runtimes.calibrate.decoder import MATRICES
from runtimes.recover.grids import BLOCK, GRIDS

MILLION = 1_000_000
TOKENIZER = "tokenizer.json"
# Keys, alignment and names of some hundred tensors in GGUF; the graph in ONNX; JSON files in MLC.
HEADERS = {"gguf": 64_000, "onnx": 1_500_000, "mlc": 200_000, "any": 64_000}


@dataclass(frozen=True)
class Target:
    """A format: the grids it can store, smallest first, and bits of a weight that lies on none."""

    name: str
    grids: tuple[str, ...]
    rest_bits: int
    tokenizer: Callable[[Path], int]

    @property
    def mixed(self) -> bool:
        """Whether there is a choice, and so more than one size."""
        return len(self.grids) > 1


def gguf_tokenizer(folder: Path) -> int:
    """Bytes of tokens, types and merges as GGUF arrays: eight bytes more for each string.

    Source: the GGUF specification (ggml's docs/gguf.md).
    """
    model = _tokenizer(folder).get("model", {})
    tokens, merges = model.get("vocab", {}), model.get("merges", [])
    pairs = (merge if isinstance(merge, str) else " ".join(merge) for merge in merges)
    return sum(len(token.encode()) + 12 for token in tokens) + sum(
        len(pair.encode()) + 8 for pair in pairs
    )


def copied_tokenizer(folder: Path) -> int:
    """Bytes of the tokenizer's file, which goes beside the model."""
    return (folder / TOKENIZER).stat().st_size


TARGETS = {
    target.name: target
    for target in (
        Target("gguf", ("iq4_nl", "q5", "q8"), 32, gguf_tokenizer),
        Target("onnx", ("q4", "q8"), 16, copied_tokenizer),
        Target("mlc", ("q4",), 16, copied_tokenizer),
        Target("any", ("q4",), 32, copied_tokenizer),
    )
}


def check_rows(parameters: Sequence[Parameter]) -> None:
    """Refuse matrices that have no whole number of blocks.

    Raises:
        InputError: naming the first one.
    """
    for p in parameters:
        if p.role in MATRICES and p.shape[1] % BLOCK:
            raise InputError(
                f"{p.name} has rows of {p.shape[1]} values, no multiple of {BLOCK}: no grid of"
                " 4 bits fits, so the model cannot be recovered"
            )


def stored_bits(target: Target, parameters: Sequence[Parameter], grids: Mapping[str, str]) -> float:
    """Bits of all weights, scales included; matrices that `grids` lacks lie on the smallest."""
    smallest = target.grids[0]
    return sum(
        p.size * GRIDS[grids.get(p.name, smallest)].bits
        if p.role in MATRICES
        else p.size * target.rest_bits
        for p in parameters
    )


def budget_bits(
    target: Target, folder: Path, parameters: Sequence[Parameter], bits: float | None, mb: float
) -> float:
    """Bits that weights may take: `bits` per parameter, or what files of `mb` · 10⁶ bytes leave.

    Raises:
        InputError: less than the format's smallest.
    """
    count = sum(p.size for p in parameters)
    least = stored_bits(target, parameters, {})
    beside = 8 * (target.tokenizer(folder) + HEADERS[target.name])
    allowed = bits * count if bits is not None else mb * 8 * MILLION - beside
    if allowed < least:
        raise InputError(
            f"--format {target.name} takes at least {least / count:.3f} bits per weight,"
            f" {(least + beside) / 8 / MILLION:.1f} MB; allow that"
        )
    return allowed


def file_bytes(target: Target, folder: Path, bits: float) -> int:
    """About what the files take whose weights have so many bits."""
    return int(bits / 8) + target.tokenizer(folder) + HEADERS[target.name]


def _tokenizer(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / TOKENIZER).read_text("utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder / TOKENIZER}: missing or not JSON") from None
    return found if isinstance(found, dict) else {}
