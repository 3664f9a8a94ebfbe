"""`artifacts/run.json`: what the last plan made on this machine, for the parity runner.

It names machine-local paths and is not part of any artifact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeproof import __version__
from edgeproof.errors import InputError
from edgeproof.files.atomic import write_atomic
from edgeproof.files.own import read_own, typed
from edgeproof.files.schema import Schema
from edgeproof.goal import Goal

RUN_RECORD = "run.json"
SCHEMA = Schema(
    current=3, oldest=1, again="run `python -m export` again", what="a record of an export"
)


@dataclass(frozen=True)
class PlannedArtifact:
    """One artifact of a run; `path` is relative to the record's folder.

    It is run in its format's usual runtime, or in the other one named.
    """

    path: str
    allow_degraded: bool
    runtime: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class PlannedVariant(PlannedArtifact):
    """A recovered variant: where it lies or will lie, and what exports it."""

    format: str
    dtype: str
    strict: bool
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Origin:
    """What files made from a model say of it; `found_by` finds it on any machine."""

    name: str
    repo: str | None
    revision: str | None
    found_by: str | None


@dataclass(frozen=True)
class PlannedRecovery:
    """Recovered variants that a plan asks for, which are made after the others are compared.

    `checkpoint` is the recovered checkpoint's folder on this machine, None: not made yet;
    `exported` tells that the variants were made of it.
    """

    origin: Origin
    goal: Goal
    variants: tuple[PlannedVariant, ...]
    checkpoint: str | None = None
    exported: bool = False


@dataclass(frozen=True)
class ModelRun:
    """One model of a run: its label, its checkpoint folder on this machine, its artifacts."""

    label: str
    checkpoint: str
    artifacts: tuple[PlannedArtifact, ...]
    recovered: tuple[PlannedRecovery, ...] = ()

    @property
    def made(self) -> tuple[PlannedRecovery, ...]:
        """The recoveries whose variants are there."""
        return tuple(item for item in self.recovered if item.exported)

    @property
    def everything(self) -> tuple[PlannedArtifact, ...]:
        """The artifacts, then those of recovered checkpoints that are there."""
        return (*self.artifacts, *(variant for item in self.made for variant in item.variants))


@dataclass(frozen=True)
class RunRecord:
    """A plan as it was carried out; `gates` are the plan's overrides, class → metric → limit."""

    models: tuple[ModelRun, ...]
    gates: dict[str, dict[str, float]]

    def save(self, root: Path) -> None:
        """Write `run.json` into the artifacts' root folder."""
        data = {"schema": SCHEMA.current, "edgeproof": __version__, **asdict(self)}
        write_atomic(root / RUN_RECORD, (json.dumps(data, indent=2) + "\n").encode())


EXACT = (PlannedArtifact, PlannedVariant, Origin, Goal)


def load_run_record(root: Path) -> RunRecord:
    """Read `run.json`.

    Raises:
        InputError: nothing was exported by a plan here, the record is damaged, or one of a newer
            edgeproof.
    """
    path = root / RUN_RECORD
    try:
        return read_own(path, SCHEMA, lambda raw: typed(RunRecord, raw, exact=EXACT))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; run `python -m export` (or make export-all)") from None
