"""What a recovery has to know of a format; imports no PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeproof.checkpoints.tokenizer import TOKENIZER


@dataclass(frozen=True)
class Target:
    """A format.

    Attributes:
        name: as in `--format`.
        grids: those it can store, smallest first, by their names in `edgeproof.recovery.GRIDS`.
        rest_bits: what a weight takes that lies on none.
        beside: about the bytes of its files that are not weights, of a checkpoint's folder.
        whole: whether linear layers that the checkpoint has in one tensor are one there too, and so
            lie on one grid.
        group_bits: what it stores for a block beside scale and codes.
    """

    name: str
    grids: tuple[str, ...]
    rest_bits: int
    beside: Callable[[Path], int]
    whole: bool = False
    group_bits: int = 0

    @property
    def mixed(self) -> bool:
        """Whether there is a choice, and so more than one size."""
        return len(self.grids) > 1


def copied_tokenizer(folder: Path) -> int:
    """Bytes of tokenizer.json, which goes beside the model."""
    return (folder / TOKENIZER).stat().st_size
