"""What a recovered model takes in a format's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.families import Parameter
from runtimes.calibrate.decoder import MATRICES
from runtimes.recover.grids import BLOCK, GRIDS
from runtimes.recover.targets import Target

MILLION = 1_000_000


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
        p.size * bits_on(target, grids.get(p.name, smallest))
        if p.role in MATRICES
        else p.size * target.rest_bits
        for p in parameters
    )


def bits_on(target: Target, grid: str) -> float:
    """Bits of a weight on a grid, with all that is stored for its block."""
    return GRIDS[grid].bits + target.group_bits / BLOCK


def budget_bits(
    target: Target, folder: Path, parameters: Sequence[Parameter], bits: float | None, mb: float
) -> float:
    """Bits that weights may take: `bits` per parameter, or what files of `mb` · 10⁶ bytes leave.

    Raises:
        InputError: less than the format's smallest.
    """
    count = sum(p.size for p in parameters)
    least = stored_bits(target, parameters, {})
    beside = 8 * target.beside(folder)
    allowed = bits * count if bits is not None else mb * 8 * MILLION - beside
    if allowed < least:
        raise InputError(
            f"--format {target.name} takes at least {least / count:.3f} bits per weight,"
            f" {(least + beside) / 8 / MILLION:.1f} MB; allow that"
        )
    return allowed


def file_bytes(target: Target, folder: Path, bits: float) -> int:
    """About what the files take whose weights have so many bits."""
    return int(bits / 8) + target.beside(folder)
