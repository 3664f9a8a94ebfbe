"""A step as data: what it runs, on which results of others, and what it needs of a machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from edgeproof.errors import InputError
from edgeproof.files.own import WrongJsonError, json_object, typed


class Kind(str, Enum):
    """What a step does; of those that can begin, the ones named first here do."""

    GIVEN = "given"  # files that a run begins with: a model, a text
    REFERENCE = "reference"
    RECOVER = "recover"
    EXPORT = "export"
    FOOTPRINT = "footprint"  # of the kind of machine that it is taken on
    MEASURE = "measure"


@dataclass(frozen=True)
class Needs:
    """What a step takes of the machine that does it.

    `memory_mb` and `gpu_memory_mb` (10⁶ bytes) are estimates. One that is `alone` begins when no
    other step runs on its machine, and none begins beside it. Of those with the same `turn` each
    would wait for the others, so that one at a time is begun. `further` are resources that a
    cluster's administrator has named.
    """

    cores: int = 1
    memory_mb: int = 0
    gpus: int = 0
    gpu_memory_mb: int = 0
    alone: bool = False
    turn: str = ""
    further: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One step: `python -m module JOB`, told of `params` and of the folders of its `inputs`.

    `inputs` has the key of each, by the name that the module knows it by. `versions` are those of
    libraries that the result depends on, `code` has the digests of packages of ours (and of
    plugins) whose code it runs: where others are installed the step is not done. What the step is
    called (`label`), which `model` it is about, and what it needs, change no result.
    """

    kind: Kind
    label: str
    model: str
    module: str
    params: dict[str, Any]
    inputs: dict[str, str]
    versions: dict[str, str]
    code: dict[str, str]
    needs: Needs = Needs()

    @cached_property
    def key(self) -> str:
        """Hex SHA-256 of all that the result depends on."""
        return digest(
            {
                "kind": self.kind.value,
                "module": self.module,
                "params": self.params,
                "inputs": self.inputs,
                "versions": self.versions,
                "code": self.code,
            }
        )

    @property
    def of_machine(self) -> bool:
        """Whether its result says something of the machine that it was done on."""
        return self.kind is Kind.FOOTPRINT

    @property
    def text(self) -> str:
        """The step as JSON, for `read_step` on another machine."""
        return json.dumps(asdict(self))


def read_step(text: str) -> Step:
    """The step that `Step.text` tells of.

    Raises:
        InputError: another edgeproof tells of it.
    """
    try:
        return typed(Step, json_object(text.encode()))
    except WrongJsonError as error:
        raise InputError(
            f"a step of another edgeproof ({error}): install the same on all machines"
        ) from None


def digest(value: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a JSON object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
