"""What is asked for: a model, a format, and one of a size, a file's size, or a gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.recovery import RECOVERY
from runtimes.recover.targets import Target


@dataclass(frozen=True)
class Wish:
    """How small: `bits` per parameter, `max_mb` · 10⁶ bytes of files, or as a gate allows.

    All three are None for a format of one size.
    """

    bits: float | None = None
    max_mb: float | None = None
    gate: str | None = None


def checked_wish(
    target: Target, bits: float | None, max_mb: float | None, gate: str | None
) -> Wish:
    """The wish that the options express.

    Raises:
        InputError: none or several, or one that the format cannot meet in more than one way.
    """
    given = sum(value is not None for value in (bits, max_mb, gate))
    if given > 1:
        raise InputError("give one of --bits, --max-mb and --gate")
    if target.mixed and not given:
        raise InputError(f"--format {target.name}: how small? give --bits, --max-mb or --gate")
    if gate is not None and not target.mixed:
        raise InputError(f"--format {target.name} has one size, so no --gate chooses one")
    return Wish(bits, max_mb, gate)


def check_out(out: Path) -> None:
    """Refuse to replace a folder that no recovery made.

    Raises:
        InputError: it is there, and is something else.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / RECOVERY).exists()):
        raise InputError(f"{out}: exists and is no recovered checkpoint; choose another --out")
