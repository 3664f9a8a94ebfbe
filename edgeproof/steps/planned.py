"""What each side says of its part of a run, as JSON of one process to another.

`export` finds the models and says what is exported of each; `runtimes` says what measuring takes,
and what recovering. Neither knows of the other: `edgeproof.steps.graph` makes steps of both.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgeproof.artifact.run_record import PlannedRecovery
from edgeproof.files.hashing import OutputFile
from edgeproof.files.own import json_object, typed
from edgeproof.steps.step import Needs

T = TypeVar("T")


@dataclass(frozen=True)
class GivenFiles:
    """Files that a run begins with: some of a folder of this machine."""

    folder: str
    files: tuple[OutputFile, ...]

    @property
    def place(self) -> Path:
        """The folder."""
        return Path(self.folder)


@dataclass(frozen=True)
class PlannedExport:
    """One variant of a model: what exports it, and where it is to lie below the model's folder.

    `files` are those that options name, by the option. One that cannot be made here at all has
    `failed`. It is measured in its format's usual `runtime`, or in the other one named.
    """

    label: str
    folder: str
    module: str
    params: dict[str, Any]
    files: dict[str, GivenFiles]
    versions: dict[str, str]
    needs: Needs
    allow_degraded: bool
    failed: str | None = None
    runtime: str | None = None


@dataclass(frozen=True)
class PlannedRecovered:
    """A recovered checkpoint of a model, as `run.json` notes it, and what is exported of that."""

    recovery: PlannedRecovery
    exports: tuple[PlannedExport, ...]


@dataclass(frozen=True)
class PlannedModel:
    """A model that was found: its checkpoint, and names of those files that exports depend on."""

    label: str
    checkpoint: GivenFiles
    inputs: tuple[str, ...]
    parameters: int
    exports: tuple[PlannedExport, ...]
    recovered: tuple[PlannedRecovered, ...] = ()


@dataclass(frozen=True)
class LostModel:
    """A model that was not found, or cannot be exported at all, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class PlannedExports:
    """What a plan asks to be exported; `gates` are its limits."""

    models: tuple[PlannedModel, ...]
    lost: tuple[LostModel, ...]
    gates: dict[str, dict[str, float]]


@dataclass(frozen=True)
class PlannedMeasuring:
    """What measuring takes, of any artifact: modules, what they are told, memory.

    `of_text` is all that the reference depends on beside its inputs, `of_artifacts` what a
    measurement does beside it. `footprint` is None where none are taken. Each step takes
    `memory_mb`, and `memory_times` what the model's weights take in float32; those that ask PyTorch
    also take `gpus` and `gpu_memory_times` the weights there.
    """

    reference: str
    footprint: str | None
    measure: str
    report: str
    of_text: dict[str, Any]
    of_artifacts: dict[str, Any]
    text: GivenFiles | None
    versions: dict[str, str]
    threads: int
    memory_mb: int
    memory_times: float
    gpus: int = 0
    gpu_memory_times: float = 0.0


@dataclass(frozen=True)
class AskedRecoveries:
    """Recoveries of a model, whose label and checkpoint folder are said."""

    label: str
    checkpoint: str
    recoveries: tuple[PlannedRecovery, ...]


@dataclass(frozen=True)
class AskedRecovering:
    """What is asked of the recoveries of a run."""

    threads: int
    models: tuple[AskedRecoveries, ...]


@dataclass(frozen=True)
class Recoverable:
    """One recovery: what its step is told, and the folder of this machine where it is kept.

    What is optional and cannot be made has `left_out`: why.
    """

    params: dict[str, Any]
    folder: str
    gpus: int = 0
    left_out: str | None = None


@dataclass(frozen=True)
class PlannedRecovering:
    """What recovering takes: a module, and what it is told of each recovery that was asked for."""

    module: str
    versions: dict[str, str]
    models: tuple[tuple[Recoverable, ...], ...]


NOTHING_RECOVERED = PlannedRecovering("", {}, ())


def told(
    planned: PlannedExports | PlannedMeasuring | AskedRecovering | PlannedRecovering,
) -> str:
    """It as a line of JSON."""
    return json.dumps(asdict(planned))


def heard(kind: type[T], text: str) -> T:
    """What a process told, in its last line."""
    return typed(kind, json_object(text.strip().rpartition("\n")[2].encode()))
