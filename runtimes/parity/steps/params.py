"""What the steps are told of the comparison: all that results depend on beside their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile, input_records
from edgeproof.steps.job import Job
from runtimes.computing import Computing
from runtimes.parity.suite import Suite
from runtimes.parity.text_options import chosen_suite

# Names of inputs.
MODEL, TEXT, REFERENCE, ARTIFACT, FOOTPRINT = "model", "text", "reference", "artifact", "footprint"
RECOVERED = "recovered"  # what the artifact was made from, where that is not the model itself


@dataclass(frozen=True)
class TextParams:
    """The text, and on which device and with how many threads it is read.

    `suite` is the text's digest, `text` the name of its file if it is the user's own; `inputs` are
    names of the checkpoint's files that exports depend on.
    """

    budget: str
    suite: str
    text: str | None
    threads: int
    device: str
    positions: int | None
    inputs: tuple[str, ...]

    @property
    def computing(self) -> Computing:
        """How PyTorch has the reference."""
        return Computing(device=self.device)


@dataclass(frozen=True)
class Params(TextParams):
    """How much of an artifact is compared, and by which of a plan's limits.

    It is run in its format's usual runtime, or in the other one named.
    """

    footprints: bool
    localise: bool
    whole_text: bool
    gates: dict[str, dict[str, float]]
    runtime: str | None = None


def suite_of(job: Job, params: TextParams) -> Suite:
    """The text that a step is of.

    Raises:
        InputError: it is another one here.
    """
    text = None if params.text is None else job.input(TEXT) / params.text
    suite = chosen_suite(params.budget, text)
    if suite.digest != params.suite:
        raise InputError(f"the text {suite.name} is another one here: install the same edgeproof")
    return suite


def model_files(checkpoint: Path, names: Sequence[str]) -> tuple[OutputFile, ...]:
    """Hashes of the checkpoint's files that exports depend on."""
    paths = [checkpoint / name for name in names]
    return input_records(paths, cache_folder() / "digests", checkpoint)
