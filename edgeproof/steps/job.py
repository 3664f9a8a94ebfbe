"""What a step's command is told: a file with its parameters, its inputs' folders, its output's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeproof.errors import InputError
from edgeproof.files.code import require_code
from edgeproof.files.own import WrongJsonError, json_object, own_bytes, typed
from edgeproof.steps.machine import where

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Job:
    """One step on this machine: what is to be put into the folder `output`, and by which `code`."""

    params: dict[str, Any]
    inputs: dict[str, str]
    output: str
    code: dict[str, str]

    def input(self, name: str) -> Path:
        """The folder of an input."""
        return Path(self.inputs[name])

    @property
    def out(self) -> Path:
        """The folder that is to be filled."""
        return Path(self.output)

    def told(self, kind: type[T]) -> T:
        """The parameters, as a dataclass.

        Raises:
            InputError: they are not.
        """
        return _read(lambda: typed(kind, self.params), "a step's parameters")


def write_job(
    path: Path,
    params: dict[str, Any],
    inputs: Mapping[str, Path],
    output: Path,
    code: Mapping[str, str],
) -> None:
    """Write what `read_job` reads."""
    folders = {name: str(folder) for name, folder in inputs.items()}
    told = {"params": params, "inputs": folders, "output": str(output), "code": dict(code)}
    path.write_text(json.dumps(told), "utf-8")


def read_job(path: Path) -> Job:
    """The job in a file.

    Raises:
        InputError: it is missing, or none, or this process has other code than who began it: it may
            be found in another place from here.
    """
    try:
        data = own_bytes(path)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; `edgeproof run` writes it") from None
    job = _read(lambda: typed(Job, json_object(data)), str(path))
    require_code(job.code, where())
    return job


def _read(read: Callable[[], T], source: str) -> T:
    try:
        return read()
    except WrongJsonError as error:
        raise InputError(f"{source}: not what `edgeproof run` writes ({error})") from None


def job_argument(command: F) -> F:
    """The argument of a step's command: its job's file."""
    return click.argument(
        "job",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=lambda _, __, v: read_job(v),
    )(command)
