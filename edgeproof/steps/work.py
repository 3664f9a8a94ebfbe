"""Do one step, on whatever machine this is: fetch its inputs, run its command, keep its result.

Invariant: what is in the store already is not done again, and what failed is in no store.
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from edgeproof import __version__
from edgeproof.errors import InputError
from edgeproof.files.atomic import scratch_folder
from edgeproof.files.cache import cache_folder, usable
from edgeproof.files.hashing import remembered_sha256
from edgeproof.files.once import once_folder
from edgeproof.files.own import json_object, typed
from edgeproof.steps.children import Children
from edgeproof.steps.job import write_job
from edgeproof.steps.machine import turn, where
from edgeproof.steps.planned import GivenFiles
from edgeproof.steps.results import Result, fetch, files_of, find, keep, note_attempt
from edgeproof.steps.step import Kind, Step, read_step
from edgeproof.steps.store import Store, open_store

GIVEN, WORK, DIGESTS = "given", "steps-work", "digests"  # folders of the cache
JOB, OUTPUT = "job.json", "output"
NOTHING: Mapping[str, GivenFiles] = {}
LAST_LINES = 40  # of what a failed command said


@dataclass(frozen=True)
class Outcome:
    """What became of a step: a result in the store, or in a line why it `failed`.

    `reused` tells that it was there before. `said` is the end of what a failed command wrote.
    """

    key: str
    failed: str | None = None
    reused: bool = False
    where: str = ""
    seconds: float = 0.0
    said: str = ""

    @property
    def text(self) -> str:
        """It as JSON, for `read_outcome`."""
        return json.dumps(asdict(self))


def read_outcome(text: str) -> Outcome:
    """The outcome that `Outcome.text` tells of."""
    return typed(Outcome, json_object(text.encode()))


def perform_text(step: str, store: str, before: Sequence[str]) -> str:
    """`perform` where all is text: a step, a store's URL, the outcomes of the steps before it."""
    for outcome in map(read_outcome, before):
        if outcome.failed is not None:
            return not_begun(read_step(step), outcome).text
    return perform(read_step(step), open_store(store), Children()).text


def not_begun(step: Step, cause: Outcome) -> Outcome:
    """What becomes of a step that needs the result of one that failed."""
    return Outcome(step.key, failed=cause.failed, where=cause.where)


def perform(
    step: Step, store: Store, children: Children, given: Mapping[str, GivenFiles] = NOTHING
) -> Outcome:
    """Do a step, unless its result is there; what goes wrong is in the outcome.

    What is `given` on this machine is taken from its folder there, by its key. Where that has
    other contents in the end, nothing is kept: the key is of those that were planned with.
    """
    begin = time.monotonic()
    try:
        found = find(store, step.key)
        if found is None:
            with turn(alone=step.needs.alone, stopped=lambda: children.ended):
                begin = time.monotonic()
                found = find(store, step.key)  # another may have done it meanwhile
                if found is None:
                    return _do(step, store, children, given)
    except (InputError, OSError) as error:
        return failed(step, str(error), begin)
    return Outcome(step.key, reused=True, where=found.where, seconds=found.seconds)


def failed(step: Step, reason: str, begin: float, said: str = "") -> Outcome:
    """The outcome of a step that was begun here at a time of the monotonic clock."""
    seconds = time.monotonic() - begin
    return Outcome(step.key, f"{step.kind.value}: {reason}", False, where(), seconds, said)


def _do(step: Step, store: Store, children: Children, given: Mapping[str, GivenFiles]) -> Outcome:
    here, begin = where(), time.monotonic()
    _require_versions(step)
    note_attempt(store, step.key, secrets.token_hex(8), here)
    with scratch_folder(work_folder()) as work:
        output = work / OUTPUT
        output.mkdir()
        inputs = {
            name: given[key].place if key in given else _input(store, key, work / name)
            for name, key in step.inputs.items()
        }
        write_job(work / JOB, step.params, inputs, output)
        done = children.run([sys.executable, "-m", step.module, str(work / JOB)])
        seconds = time.monotonic() - begin
        if done is None or done.returncode:
            reason, said = (
                ("interrupted", "") if done is None else _why(done.returncode, done.stderr)
            )
            return failed(step, reason, begin, said)
        for key in step.inputs.values():
            if key in given:
                _require_unchanged(given[key])
        kept = Result(step.kind, step.label, files_of(output), here, seconds)
        keep(store, step.key, kept, output, take=True)
    return Outcome(step.key, where=here, seconds=seconds)


def work_folder() -> Path:
    """A folder of the cache for what goes when a step is done; on the disk of a store there."""
    folder = usable(cache_folder() / WORK)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _input(store: Store, key: str, place: Path) -> Path:
    """The folder of a step's result on this machine.

    What a run was given is needed by many steps, and kept in the cache.
    """
    result = find(store, key)
    if result is None:
        raise InputError(f"{store.url}: {where()} finds nothing there that was put there before")
    if result.kind is Kind.GIVEN:
        return once_folder(
            cache_folder() / GIVEN / key, lambda folder: fetch(store, result, folder)
        )
    place.mkdir()
    fetch(store, result, place)
    return place


def _require_unchanged(given: GivenFiles) -> None:
    """Refuse a result of files that somebody has changed since they were hashed.

    Raises:
        InputError: naming the first.
        OSError: one is gone.
    """
    for item in given.files:
        path = given.place / item.path
        if remembered_sha256(path, cache_folder() / DIGESTS) != item.sha256:
            raise InputError(f"{path}: it has changed since the run began; run again")


def _require_versions(step: Step) -> None:
    """Refuse a machine where another result would come out.

    Raises:
        InputError: naming the first library.
    """
    for name, wanted in step.versions.items():
        found = installed(name)
        if found != wanted:
            have = f"has {name} {found}" if found else f"has no {name}"
            raise InputError(f"{where()} {have}, the run was begun with {wanted}; install that")


def installed(name: str) -> str | None:
    """The version of a library here, or edgeproof's own; None where it is not installed."""
    if name == "edgeproof":
        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _why(code: int, errors: str) -> tuple[str, str]:
    """Why a command failed, in a line, and the end of what it said."""
    lines = errors.strip().splitlines()
    said = "\n".join(lines[-LAST_LINES:])
    if code < 0:
        name = signal.Signals(-code).name
        return f"its process was ended by {name}: by somebody, or for want of memory", said
    last = lines[-1].removeprefix("error: ") if lines else f"exit code {code}"
    return last, said
