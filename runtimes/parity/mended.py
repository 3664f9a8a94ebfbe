"""What few bits cost before and after a recovery: each recovered file beside a plain one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeproof.artifact import Precision
from edgeproof.display import megabytes
from runtimes.parity.fields import AnyFloat
from runtimes.parity.result import Entry, HeldOut

METRICS = ("mean_kl", "clear_top1", "acceptance")
# Of the upper end of its interval on text that the model wrote. The bundled model's languages that
# it hardly writes are at 2.6, all other kinds of text below 1.1.
FAR = 2.0


@dataclass(frozen=True)
class Figures:
    """One export's size and damage."""

    export: str
    """Format and variant."""
    bytes: int
    effective_bpw: float
    """Bytes of weights × 8 / parameters."""
    mean_kl: AnyFloat
    """Nats."""
    clear_top1: AnyFloat
    """Share of the positions where the reference is sure with its most likely token."""
    acceptance: AnyFloat
    """Probability that a sampler emits the same token."""
    positions: int | None
    """Of how many positions it is, where these are the first of the text; null for all."""

    @property
    def text(self) -> str:
        """In a line."""
        part = "" if self.positions is None else f" (n = {self.positions:,})"
        return (
            f"{megabytes(self.bytes)} MB, mean KL {self.mean_kl:.2g}{part}, clear top-1"
            f" {100 * self.clear_top1:.1f} %, acceptance {100 * self.acceptance:.1f} %"
        )


@dataclass(frozen=True)
class Mended:
    """A recovered export, and what its format's bits cost without recovery."""

    after: Figures
    before: Figures | None
    """The plain export below 8 bits of the same format that is nearest in bits per weight."""
    tokens: int
    """Of the calibration text."""
    held_out: HeldOut | None
    """The same damage on text that the model wrote; null where that is not known."""
    farther: dict[str, float]
    """Mean KL of the kinds of text where it is more than twice the upper end on that text."""

    @property
    def text(self) -> str:
        """In a sentence or two."""
        after, before = self.after, self.before
        plain = f"; plainly rounded, {before.export}: {before.text}" if before else ""
        known = f"{self.tokens:,} tokens of calibration text"
        if self.held_out is not None:
            known += f"; weights on held-out text of the model: mean KL {self.held_out.mean_kl:.2g}"
        return f"{after.export}: {after.text}{plain} ({known}){self._warning}"

    @property
    def _warning(self) -> str:
        if not self.farther:
            return ""
        kinds = ", ".join(f"{kind} {kl:.2g}" for kind, kl in self.farther.items())
        return (
            f". Calibration and this text differ: mean KL of {kinds}; recover with"
            " --calibration FILE of such text where it matters"
        )


def mended(sound: Sequence[Entry]) -> tuple[Mended, ...]:
    """Every recovered entry that was measured, beside a plain one that was."""
    return tuple(
        Mended(
            _figures(entry),
            _plain(entry, sound),
            entry.recovered.tokens,
            entry.recovered.held_out,
            _farther(entry, entry.recovered.held_out),
        )
        for entry in sound
        if entry.recovered is not None
    )


def _farther(entry: Entry, held: HeldOut | None) -> dict[str, float]:
    run = entry.measurement
    if run is None or held is None:
        return {}
    kinds = sorted(run.mean_kl_by_kind.items(), key=lambda item: -item[1])
    return {kind: kl for kind, kl in kinds if kl > FAR * held.high}


def _plain(entry: Entry, others: Iterable[Entry]) -> Figures | None:
    own = entry.artifact.manifest
    plain = [
        other
        for other in others
        if other.recovered is None
        and other.artifact.manifest.variant.format == own.variant.format
        and other.artifact.manifest.variant.precision is Precision.LOW_BIT
    ]
    nearest = min(
        plain,
        key=lambda other: abs(other.artifact.manifest.effective_bpw - own.effective_bpw),
        default=None,
    )
    return None if nearest is None else _figures(nearest)


def _figures(entry: Entry) -> Figures:
    run = entry.measurement
    assert run is not None, "only what was measured is shown"
    values = {metric: run.estimates[metric].value for metric in METRICS}
    return Figures(
        export=entry.name,
        bytes=entry.bytes,
        effective_bpw=entry.artifact.manifest.effective_bpw,
        positions=None if run.whole_text else run.positions,
        **values,
    )
