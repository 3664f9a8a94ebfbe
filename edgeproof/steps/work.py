"""Do one step, on whatever machine this is: fetch its inputs, run its command, keep its result.

Invariant: what is in the store already is not done again, and what failed is in no store.

What is about a machine lies under a key of its own for each kind of machine, and so does what rests
on it. An input that was lost is made again here, by the step that gives it.
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path

from edgeproof import __version__
from edgeproof.errors import InputError
from edgeproof.files.atomic import scratch_folder
from edgeproof.files.cache import cache_folder, usable
from edgeproof.files.code import require_code
from edgeproof.files.hashing import remembered_sha256
from edgeproof.files.once import once_folder
from edgeproof.files.own import json_object, typed
from edgeproof.steps.children import Children
from edgeproof.steps.job import write_job
from edgeproof.steps.machine import machine_kind, turn, where
from edgeproof.steps.planned import GivenFiles
from edgeproof.steps.results import (
    LostResultError,
    Result,
    fetch,
    files_of,
    find,
    keep,
    note_attempt,
)
from edgeproof.steps.step import Kind, Step, digest, read_step
from edgeproof.steps.store import Store, open_store

GIVEN, WORK, DIGESTS = "given", "steps-work", "digests"  # folders of the cache
JOB, OUTPUT = "job.json", "output"
LAST_LINES = 40  # of what a failed command said
TRIES = 3  # of a step whose inputs are lost


@dataclass(frozen=True)
class Outcome:
    """What became of a step: a result in the store, or in a line why it `failed`.

    `reused` tells that it was there before. `said` is the end of what a failed command wrote. The
    result lies under `at`, None: the step's key. It has failed over what is `lost` where only who
    began the run can put that there again.
    """

    key: str
    failed: str | None = None
    reused: bool = False
    where: str = ""
    seconds: float = 0.0
    said: str = ""
    at: str | None = None
    lost: bool = False

    @property
    def result(self) -> str:
        """The key under which the result lies."""
        return self.key if self.at is None else self.at

    @property
    def text(self) -> str:
        """It as JSON, for `read_outcome`."""
        return json.dumps(asdict(self))


def read_outcome(text: str) -> Outcome:
    """The outcome that `Outcome.text` tells of."""
    return typed(Outcome, json_object(text.encode()))


def perform_text(step: str, store: str, before: Sequence[str], rests: Sequence[str] = ()) -> str:
    """`perform` where all is text, as Dask carries it.

    That is a step, a store's URL, the outcomes of the steps that it needs, and what it rests on.
    """
    asked, outcomes = read_step(step), [read_outcome(text) for text in before]
    for outcome in outcomes:
        if outcome.failed is not None:
            return not_begun(asked, outcome).text
    work = Work(open_store(store), Children(), steps={s.key: s for s in map(read_step, rests)})
    return perform(asked, work, {outcome.key: outcome for outcome in outcomes}).text


def not_begun(step: Step, cause: Outcome) -> Outcome:
    """What becomes of a step that needs the result of one that failed."""
    return Outcome(step.key, failed=cause.failed, where=cause.where, lost=cause.lost)


@dataclass(frozen=True)
class Work:
    """With what steps are done here.

    What is `given` on this machine is taken from its folder there, by its key. `steps` are those,
    by their keys, that give what others of them need.
    """

    store: Store
    children: Children
    given: Mapping[str, GivenFiles] = field(default_factory=dict)
    steps: Mapping[str, Step] = field(default_factory=dict)


NONE_BEFORE: Mapping[str, Outcome] = {}


def perform(step: Step, work: Work, before: Mapping[str, Outcome] = NONE_BEFORE) -> Outcome:
    """Do a step, unless its result is there; what goes wrong is in the outcome.

    The steps `before` it tell where their results lie, by their keys. Where what is given has other
    contents in the end, nothing is kept: the key is of those that were planned with.
    """
    begin, known = time.monotonic(), dict(before)
    for _ in range(TRIES):
        lost = None
        try:
            return _performed(step, work, known)
        except _LostInput as error:
            lost = error
        except (InputError, OSError) as error:
            return failed(step, str(error), begin)
        if lost.key not in work.steps:
            return replace(failed(step, str(lost), begin), lost=True)
        known[lost.key] = perform(work.steps[lost.key], work, known)
        if known[lost.key].failed is not None:
            return not_begun(step, known[lost.key])
    return failed(step, str(lost), begin)


class _LostInput(InputError):
    """The result of the step with this key is not in the store any more."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


def _result_key(step: Step, before: Mapping[str, Outcome]) -> str:
    """Where its result lies: what is of this kind of machine, or rests on that, is not all's."""
    moved = {
        name: before[key].result
        for name, key in step.inputs.items()
        if key in before and before[key].result != key
    }
    machine = machine_kind() if step.of_machine else None
    if not moved and machine is None:
        return step.key
    return digest({"step": step.key, "inputs": moved, "machine": machine})


def _performed(step: Step, work: Work, before: Mapping[str, Outcome]) -> Outcome:
    key = _result_key(step, before)
    found = find(work.store, key)
    if found is None:
        with turn(alone=step.needs.alone, stopped=lambda: work.children.ended):
            found = find(work.store, key)  # another may have done it meanwhile
            if found is None:
                return replace(_do(step, key, work, before), at=key)
    return Outcome(step.key, reused=True, where=found.where, seconds=found.seconds, at=key)


def failed(step: Step, reason: str, begin: float, said: str = "") -> Outcome:
    """The outcome of a step that was begun here at a time of the monotonic clock."""
    seconds = time.monotonic() - begin
    return Outcome(step.key, f"{step.kind.value}: {reason}", False, where(), seconds, said)


def _do(step: Step, result: str, work: Work, before: Mapping[str, Outcome]) -> Outcome:
    here, begin = where(), time.monotonic()
    store, given = work.store, work.given
    _require_versions(step)
    require_code(step.code, here)
    with scratch_folder(work_folder()) as folder:
        output = folder / OUTPUT
        output.mkdir()
        inputs = {
            name: given[key].place
            if key in given
            else _input(store, key, before[key].result if key in before else key, folder / name)
            for name, key in step.inputs.items()
        }
        write_job(folder / JOB, step.params, inputs, output, step.code)
        note_attempt(store, step.key, secrets.token_hex(8), here)
        done = work.children.run([sys.executable, "-m", step.module, str(folder / JOB)])
        seconds = time.monotonic() - begin
        if done is None or done.returncode:
            reason, said = (
                ("interrupted", "") if done is None else _why(done.returncode, done.stderr)
            )
            return failed(step, reason, begin, said)
        for key in step.inputs.values():
            if key in given:
                _require_unchanged(given[key])
        require_code(step.code, here)
        kind = machine_kind() if step.of_machine else ""
        kept = Result(step.kind, step.label, files_of(output), here, seconds, kind)
        keep(store, result, kept, output, take=True)
    return Outcome(step.key, where=here, seconds=seconds)


def work_folder() -> Path:
    """A folder of the cache for what goes when a step is done; on the disk of a store there."""
    folder = usable(cache_folder() / WORK)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _input(store: Store, step: str, at: str, place: Path) -> Path:
    """The folder on this machine of the result of a step, which lies in the store `at` a key.

    What a run was given is needed by many steps, and kept in the cache.

    Raises:
        _LostInput: it is not there any more.
    """
    kept = cache_folder() / GIVEN / at
    result = find(store, at)
    if result is None:
        said = f"{store.url}: {where()} finds nothing there that was put there before"
        raise _LostInput(step, said)
    try:
        if result.kind is Kind.GIVEN:
            return once_folder(kept, lambda folder: fetch(store, result, folder))
        place.mkdir()
        fetch(store, result, place)
    except LostResultError as error:
        raise _LostInput(step, str(error)) from None
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
