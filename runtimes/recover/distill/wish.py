"""What is asked of a distillation: how long, and where; imports no PyTorch until it is checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeproof.errors import InputError
from edgeproof.goal import MINUTES
from runtimes.computing import AUTO


@dataclass(frozen=True)
class Pace:
    """How much is computed at a time on a device: what memory and speed there allow.

    Attributes:
        step_rows: chunks of a training step.
        micro_rows: of which so many are in memory at a time.
        logit_rows: positions whose logits are in memory at a time.
        sampled_rows: chunks of a text that is sampled when the last one is read.
        cache_bytes: of keys and values meanwhile, at most.
        changed_values: of a matrix, changed at a time: a core's cache holds them, a GPU is busy.
    """

    step_rows: int
    micro_rows: int
    logit_rows: int
    sampled_rows: int
    cache_bytes: int
    changed_values: int


PACES = {
    "cuda": Pace(64, 16, 4096, 768, 8_000_000_000, 1 << 22),
    "mps": Pace(8, 4, 512, 64, 1_000_000_000, 1 << 22),
    "cpu": Pace(2, 2, 256, 16, 500_000_000, 1 << 16),
}


@dataclass(frozen=True)
class Distillation:
    """So many minutes on a device of `PACES`."""

    minutes: float
    device: str


def checked_distillation(
    wanted: bool, minutes: float | None, device: str | None
) -> Distillation | None:
    """The distillation that `--distill`, `--minutes` and `--device` express; None: none.

    Raises:
        InputError: options without `--distill`, no number, or a device that is not there.
    """
    if not wanted:
        for option, value in (("--minutes", minutes), ("--device", device)):
            if value is not None:
                raise InputError(f"{option} says how to distill; give --distill with it")
        return None
    if minutes is not None and not math.isfinite(minutes):
        raise InputError(f"--minutes {minutes}: give a number")
    from runtimes.pytorch import chosen_device

    return Distillation(MINUTES if minutes is None else minutes, chosen_device(device or AUTO))
