"""Whether the reference on a GPU computes what the CPU does, before anything rests on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgeproof.errors import InputError
from runtimes.computing import CPU, Computing
from runtimes.parity.fields import AnyFloat
from runtimes.parity.suite import long_text
from runtimes.registry import open_reference

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

# Of the text that both run.
TOKENS = 64
LONGEST = 2000  # characters, which are more tokens
# float32 sums in another order: some 1e-6, up to 1e-5 after many layers. TF32 gives 1e-3.
LIMIT = 1e-4


@dataclass(frozen=True)
class DeviceAgreement:
    """How far the GPU's hidden states are from the CPU's."""

    tokens: int
    """Of the text that both ran."""
    difference: AnyFloat
    """Root mean square of the difference over that of the CPU's."""
    limit: AnyFloat
    """What it may be at most."""


def agreement_with_cpu(
    runtime: TorchRuntime, checkpoint: Path, threads: int, computing: Computing
) -> DeviceAgreement | None:
    """Hold an open reference against the same on the CPU; None where it is there.

    Raises:
        InputError: they are further apart than `LIMIT`.
    """
    if runtime.device == CPU:
        return None
    on_cpu = open_reference(checkpoint, threads, replace(computing, device=CPU))
    return agreement(runtime, on_cpu, runtime.tokenize(long_text()[:LONGEST]))


class HasHidden(Protocol):
    """What gives hidden states of ids: float32 [T, H]."""

    device: str

    def hidden(self, ids: Sequence[int]) -> np.ndarray:
        """Those of a new sequence."""
        ...


def agreement(found: HasHidden, expected: HasHidden, ids: Sequence[int]) -> DeviceAgreement:
    """Compare a device's hidden states with the CPU's on the first tokens of a text.

    Raises:
        InputError: they are further apart than `LIMIT`.
    """
    taken = [*ids[:TOKENS]]
    want = expected.hidden(taken).astype(np.float64)
    difference = found.hidden(taken) - want
    relative = float(np.sqrt(np.square(difference).mean() / np.square(want).mean()))
    if not relative <= LIMIT:
        raise InputError(
            f"--device: {found.device} computes hidden states that are {relative:.2g} from the"
            f" CPU's, more than {LIMIT:g}; use --device cpu"
        )
    return DeviceAgreement(len(taken), relative, LIMIT)
