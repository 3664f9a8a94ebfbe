"""What all comparisons of one model share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.artifact import Artifact
from edgeproof.files.hashing import OutputFile
from runtimes.footprint import Costs, footprint
from runtimes.parity.degeneration import Scorer
from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.intervals import Estimate
from runtimes.parity.localise import TOKENS, Subject, Weighed
from runtimes.parity.reference import Reference
from runtimes.parity.samples import reference_samples
from runtimes.parity.stages import Stages
from runtimes.parity.suite import Prompt
from runtimes.parity.watch import Journal
from runtimes.parity.weight_runs import WeightRuns
from runtimes.peaks import Peak

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime


# What weights gave in PyTorch, the estimates that follow from it, and how they err.
WeightRun = tuple[list[PositionMetrics], "dict[str, Estimate] | None", Weighed]


# What is told the metrics of an artifact's documents.
Keep = Callable[[Artifact, Sequence[PositionMetrics]], None]


@dataclass(frozen=True)
class Bench:
    """What every comparison of one model shares.

    `original` is what is compared with, `scorer`'s too, and `original_inputs` are its files; the
    artifacts were made of `inputs` in the folder `checkpoint`, which is `stored` in PyTorch, the
    same unless a recovery made it. `peaks` are `stored`'s; `note` is what is said of the text;
    `keep` is told what was measured at the positions of each artifact; `costs` measures footprints.
    """

    reference: Reference
    original: TorchRuntime
    scorer: Scorer
    prompts: tuple[Prompt, ...]
    inputs: tuple[OutputFile, ...]
    stored: TorchRuntime
    original_inputs: tuple[OutputFile, ...]
    peaks: tuple[Peak, ...]
    threads: int
    footprints: bool
    checkpoint: Path
    journal: Journal
    stages: Stages
    note: str | None
    keep: Keep | None = None
    costs: Costs = footprint
    weight_runs: WeightRuns[WeightRun] = field(default_factory=WeightRuns)

    def reference_for(self, artifact: Artifact) -> Reference:
        """The reference, on the tokens that the artifact has too.

        Raises:
            InputError: as for `Reference.on_common_tokens`.
        """
        vocabulary = artifact.vocabulary
        return self.reference if vocabulary is None else self.reference.on_common_tokens(vocabulary)

    def samples(self, wanted: int) -> Sequence[tuple[int, ...]]:
        """The original's sampled replies to the first so many of the sampled chats."""
        prompts = [document.prompt for document in self.reference.sampled_chats]
        return reference_samples(
            self.original, self.original_inputs, prompts, self.reference.reply_tokens, wanted
        )

    def rest(self) -> None:
        """Free the weights; what needs them next reads them again."""
        self.original.rest()
        self.stored.rest()

    def subject(self, artifact: Artifact, runtime: str | None = None) -> Subject:
        """What localisation asks of an artifact, on the first text that is long enough."""
        document = max(self.reference.documents, key=lambda item: min(len(item.ids), TOKENS))
        return Subject(artifact, self.checkpoint, self.stored, document.ids, self.threads, runtime)
