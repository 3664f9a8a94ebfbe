"""What a parity run found: one entry per artifact, and all of one model. How it looks: `report`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeproof.artifact import Artifact
from edgeproof.verdicts import Verdict
from runtimes.parity.agreement import DeviceAgreement
from runtimes.parity.environment import Environment
from runtimes.parity.fields import AnyFloat, Sha256
from runtimes.parity.floor import Floor
from runtimes.parity.gates import Gate
from runtimes.parity.localise.result import Localisation
from runtimes.parity.measure import Measurement
from runtimes.parity.verdict import Judgement
from runtimes.peaks import Peak


@dataclass(frozen=True)
class InputFile:
    """A file that the artifacts were made from."""

    path: str
    """Its name in the checkpoint's folder."""
    sha256: Sha256


@dataclass(frozen=True)
class HeldOut:
    """How far recovered weights, in float32, are from the original's on text that it wrote.

    Nothing of a recovery is chosen by that text, but its size where that was searched by `--gate`.
    """

    tokens: int
    mean_kl: AnyFloat
    """Nats."""
    low: AnyFloat
    """Of its 95 % interval."""
    high: AnyFloat
    """Of the same."""


@dataclass(frozen=True)
class RecoveredFrom:
    """The recovered checkpoint that an artifact was made from; its stored values are that one's."""

    tokens: int
    """Of the calibration text, which is the model's own where none was given."""
    text: Sha256
    """SHA-256 of these tokens' ids."""
    inputs: tuple[InputFile, ...]
    """Its files."""
    held_out: HeldOut | None = None
    """Null where recovery.json does not say."""


@dataclass(frozen=True)
class Entry:
    """One artifact's result; `measurement` is None when it could not be opened.

    `localisation` says where it breaks, if anybody asked or it does; `recovered` from what it was
    made, where a recovery made that.
    """

    artifact: Artifact
    allow_degraded: bool
    gates: tuple[Gate, ...]
    judgement: Judgement
    measurement: Measurement | None
    localisation: Localisation | None = None
    recovered: RecoveredFrom | None = None

    @property
    def name(self) -> str:
        """Format and variant, as the tables name it."""
        variant = self.artifact.manifest.variant
        return f"{variant.format} {variant.name}"

    @property
    def accepted(self) -> bool:
        """Whether the plan's requirement is met."""
        return self.judgement.verdict.accepted(allow_degraded=self.allow_degraded)

    @property
    def excused(self) -> bool:
        """Whether it is accepted only because the plan allows what it is."""
        return self.accepted and self.judgement.verdict is not Verdict.PASS

    @property
    def bytes(self) -> int:
        """Size of the whole artifact folder, without the manifest."""
        return sum(item.bytes for item in self.artifact.manifest.outputs)


@dataclass(frozen=True)
class ComparedText:
    """What was compared on."""

    name: str
    sha256: Sha256


@dataclass(frozen=True)
class ReferenceFacts:
    """What every artifact was compared with."""

    runtime: str
    """PyTorch and transformers, with versions; and what read weights that are stored quantised."""
    text: ComparedText
    documents: int
    positions: int
    """Tokens at which logits were compared, those of a beginning that documents share once."""
    repeated: int
    """Tokens that do not count: an earlier document begins with them too."""
    peaks: tuple[Peak, ...]
    """The largest values of each place that may overflow float16; scores are an upper bound."""
    fp16_headroom: AnyFloat
    """65504 / the largest of them, without scores."""
    fp16_headroom_squared: AnyFloat
    """65504 / the residual stream's peak²: below 1, norms must add squares up in float32."""
    floors: dict[str, Floor]
    """Runtime → the KL of a float32 artifact with exact weights."""
    inputs: tuple[InputFile, ...]
    """The checkpoint's files that the artifacts were made from, but recovered ones."""
    original: tuple[InputFile, ...] | None = None
    """Where a recovery made that checkpoint, the files of the model it was made from: what logits,
    replies and weights alone were compared with. Null where that is the checkpoint itself."""
    weights: str = "whole"
    """What of its weights PyTorch had in memory: whole, all of them, or layers, one layer's at a
    time; figures are the same."""

    device: str = "cpu"
    """Where PyTorch computed them; a GPU by its kind and name."""
    agreement: DeviceAgreement | None = None
    """How far a GPU's are from the CPU's; null on the CPU."""

    @property
    def how(self) -> str:
        """What goes after the runtime's name where it was on a GPU, or not a whole model."""
        layers = ", one layer in memory at a time" if self.weights == "layers" else ""
        if self.agreement is None:
            return layers
        return f"{layers}; {self.agreement.difference:.1g} from the CPU's hidden states"

    @property
    def whose(self) -> str:
        """What goes before the runtime's name where a recovered checkpoint was compared."""
        return "" if self.original is None else "what was recovered, the original in "


@dataclass(frozen=True)
class Unreadable:
    """A folder of the run that does not say what it is, or is of a format that nothing reads."""

    folder: str
    """Its format's folder and its own."""
    reason: str
    """In one line."""


@dataclass(frozen=True)
class ModelResult:
    """All artifacts of one model, what they were compared with, and where.

    What is `unreadable` was not compared, and is a FAIL.
    """

    label: str
    reference: ReferenceFacts
    environment: Environment
    entries: tuple[Entry, ...]
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether every artifact can be read and meets its requirement."""
        return not self.unreadable and all(entry.accepted for entry in self.entries)


def smallest_passing(entries: Iterable[Entry]) -> Entry | None:
    """The recommendation: the smallest artifact that passes; None where none does."""
    passing = [entry for entry in entries if entry.judgement.verdict is Verdict.PASS]
    return min(passing, key=lambda entry: entry.bytes, default=None)
