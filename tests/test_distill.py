"""Distillation of tiny models on the CPU: nearer to the original, on the same grids, resumable.

The clock of these trainings counts steps, so that they do not depend on the machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgeproof.artifact import open_artifact
from edgeproof.artifact.run_record import ModelRun, Origin, PlannedRecovery
from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.goal import Goal
from edgeproof.recovery import Recovery, read_recovery, weights_digest
from export.command import format_command
from export.formats import load_format
from runtimes.calibrate.decoder import Decoder
from runtimes.located import Model
from runtimes.parity import statistics
from runtimes.recover import planned
from runtimes.recover import run as runs
from runtimes.recover.__main__ import KEPT
from runtimes.recover.distill import latents, loop, loss, supply
from runtimes.recover.distill import run as distillation
from runtimes.recover.distill.loop import Training
from runtimes.recover.distill.run import Distilled, Part, Start, distill
from runtimes.recover.distill.wish import Distillation
from runtimes.recover.progress import Progress
from runtimes.recover.rounding import Rounded
from tests.recovering import LEVELS, make_small, on_grid, values, windows_once
from tests.test_recovered_export import differences

ASKED = ("--format", "gguf", "--bits", "5.2", "--tokens", "512", "--threads", "1")
TRAINED = (*ASKED, "--distill", "--minutes", "0.25", "--device", "cpu")


class Clock:
    """Seconds that steps take, whatever they take; `at` is called with each new time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.at: Callable[[float], None] = lambda now: None
        self._pull = loss.pull
        patch.setattr(loop.loss, "pull", self.pull)
        patch.setattr(distillation, "Training", self.training)

    def training(self, *arguments: Any) -> Training:
        return Training(*arguments[:-1], Progress(arguments[-1].say, lambda: self.now))

    def pull(self, *arguments: Any) -> torch.Tensor:
        """Half a second for each of a step's two chunks."""
        self.now += 0.5 * len(arguments[2])
        self.at(self.now)
        return self._pull(*arguments)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def lighten(patch: pytest.MonkeyPatch) -> None:
    """Little text, and a folder needs no process that finds it."""
    patch.setattr(statistics, "RESAMPLES", 200)
    patch.setattr(runs, "evaluation_windows", windows_once)
    patch.setattr(runs, "LEAST_HELD", 512)
    patch.setattr(runs, "VALIDATION_TOKENS", 256)
    patch.setattr(supply, "READINGS", 1)
    patch.setattr(loop, "KEEP_EVERY", 3.0)
    patch.setattr(
        "runtimes.located.located",
        lambda model, revision: Model(Path(model), "tiny", None, revision, None),
    )


def begin(folder: Path, out: Path, *options: str) -> tuple[int, str]:
    arguments = ["recover", "-m", str(folder / "tiny"), "-o", str(out), *options]
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.output


def run(folder: Path, out: Path, *options: str) -> tuple[Recovery, str]:
    code, output = begin(folder, out, *options)
    assert code == 0, output
    record = read_recovery(out)
    assert record is not None
    return record, output


@dataclass(frozen=True)
class Made:
    """A tiny model that the command has distilled, and what training began with."""

    folder: Path
    wish: Distillation
    start: Start
    parts: list[Part]
    record: Recovery
    output: str

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def kept(self) -> Path:
        """What is kept of distillations in a test's own cache."""
        (found,) = (cache_folder() / "recover").glob("distilled-*")
        return found

    def train(self) -> Distilled:
        """The training alone."""
        return distill(self.wish, self.start, self.parts, Progress(lambda line: None))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("distill")
    make_small(folder / "tiny")
    given: list[Any] = []

    def noted(wish: Distillation, start: Start, parts: Iterable[Part], lines: Any) -> Distilled:
        given.extend((wish, start, list(parts)))
        return distill(wish, start, given[2], lines)

    with pytest.MonkeyPatch.context() as patch:
        lighten(patch)
        Clock(patch)
        patch.setattr(runs, "distill", noted)
        patch.setenv("EDGEPROOF_CACHE", str(folder / "cache"))
        record, output = run(folder, folder / "out", *TRAINED)
    return Made(folder, *given, record, output)


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    lighten(monkeypatch)


@pytest.fixture
def same_cache(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the first run, without the trainings."""
    own = cache_folder() / "recover"
    shutil.copytree(
        made.folder / "cache" / "recover", own, ignore=shutil.ignore_patterns("distilled-*")
    )


@pytest.mark.numbers
def test_it_gets_nearer_on_the_same_grids(made: Made) -> None:
    method = made.record.method
    said, held = method["distilled"], method["held_out"]["figures"]["mean_kl"]
    assert made.record.grids == made.start.grids
    assert said["best"] < 0.95 * said["start"]
    assert held[0] < said["held_out_before"]["mean_kl"][0]
    assert (said["device"], said["minutes"], said["kept_start"]) == ("cpu", 0.25, False)
    assert said["steps"] == 14  # as many as are sure to fit
    assert said["texts"] > 1
    assert said["sha256"] == weights_digest(made.out)
    assert "distilled, 0.25 minutes on cpu, 14 steps" in made.output
    for name, array in values(made.out).items():
        if array.ndim == 2:
            assert on_grid(array, LEVELS[made.record.grids[name]]), name
        else:
            assert np.array_equal(array, array.astype(np.float16).astype(np.float32)), name


def test_an_export_stores_it_without_a_second_rounding(made: Made, tmp_path: Path) -> None:
    arguments = ["-m", str(made.out), "-o", str(tmp_path), "-d", "auto"]
    done = CliRunner().invoke(format_command(load_format("gguf")), arguments)
    assert done.exit_code == 0, done.output
    (path,) = (item.parent for item in tmp_path.rglob("edgeproof.json"))
    assert differences(open_artifact(path), made.out) == []


def test_again_it_is_taken_from_the_cache(
    made: Made, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(made.folder / "cache"))
    record, _ = run(made.folder, tmp_path / "out", *TRAINED)
    assert (clock.now, record) == (0, made.record)
    assert {path.name for path in made.kept.iterdir()} == {"best", "outcome.json"}


def test_killed_and_begun_again_it_goes_on(made: Made, clock: Clock) -> None:
    """With a clock of steps it even ends with the same weights."""

    class Killed(Exception):
        pass

    def kill(now: float) -> None:
        if now == 10:
            raise Killed

    clock.at = kill
    with pytest.raises(Killed):
        made.train()
    (state,) = made.kept.glob("state-*")
    number = int(state.name.removeprefix("state-"))
    assert 5 < number <= 9
    # What a killed process was writing is removed, a state as well as a file.
    (made.kept / ".edgeproof-tmp-state-8-0").mkdir()
    (made.kept / ".edgeproof-tmp-1").write_text("")
    before = clock.now
    found = made.train()
    assert clock.now - before <= 15 - number
    assert {path.name for path in made.kept.iterdir()} == {"best", "outcome.json"}
    whole = values(made.out)
    for part in found.values:
        for name, value in part.items():
            assert np.array_equal(value.numpy(), whole[name]), name


@pytest.mark.usefixtures("same_cache")
def test_ctrl_c_says_how_to_go_on(made: Made, tmp_path: Path, clock: Clock) -> None:
    def interrupt(now: float) -> None:
        raise KeyboardInterrupt

    clock.at = interrupt
    code, output = begin(made.folder, tmp_path / "out", *TRAINED)
    assert code == 130
    assert output.endswith(f"interrupted: {KEPT}\n")


def test_a_start_that_training_spoils_is_kept(
    made: Made, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    del clock
    monkeypatch.setattr(latents, "LEVEL_RATE", 10.0)
    monkeypatch.setattr(latents, "SCALE_RATE", 1.0)
    outcome = made.train().outcome
    assert not outcome.improved
    assert outcome.best == outcome.start
    assert outcome.steps == 14


@pytest.mark.usefixtures("same_cache")
def test_without_one_finite_gradient_it_ends_with_the_start(
    made: Made, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "HOPELESS", 3)
    monkeypatch.setattr(loop.loss, "pull", lambda *given: clock.pull(*given) * float("nan"))
    record, output = run(made.folder, tmp_path / "out", *TRAINED)
    said = record.method["distilled"]
    assert said["steps"] == said["skipped"] == 3
    assert said["kept_start"]
    assert said["held_out_before"] == record.method["held_out"]["figures"]
    assert "the start, which is kept" in output
    found = values(tmp_path / "out")
    for part in made.parts:
        for name, item in part.items():
            start = item.values if isinstance(item, Rounded) else item
            assert np.array_equal(start.numpy(), found[name]), name


def test_gradients_that_are_not_finite_change_nothing(
    made: Made, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes(student: Decoder, *others: Any) -> torch.Tensor:
        found = clock.pull(student, *others)
        if 3 < clock.now <= 5:
            student.head.grad.mul_(float("nan"))  # type: ignore[union-attr]
        return found

    monkeypatch.setattr(loop.loss, "pull", sometimes)
    outcome = made.train().outcome
    assert outcome.skipped == 2
    assert outcome.improved


def test_too_little_memory_is_one_line(made: Made, clock: Clock) -> None:
    def full(now: float) -> None:
        raise torch.OutOfMemoryError

    clock.at = full
    with pytest.raises(InputError, match="--device cpu: too little memory"):
        made.train()


def test_a_disk_without_room_for_states_is_said_first(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a recovery alone would begin."""

    class Begun(Exception):
        pass

    def started(*arguments: Any) -> None:
        raise Begun

    parameters = sum(array.size for array in values(made.out).values())
    room = type("usage", (), {"free": 14 * parameters})
    monkeypatch.setattr("edgeproof.files.space.shutil.disk_usage", lambda path: room)
    monkeypatch.setattr(runs, "_Run", started)
    code, output = begin(made.folder, tmp_path / "out", *TRAINED)
    assert (code, output.count("\n")) == (2, 1), output
    assert "MB are needed" in output
    code, output = begin(made.folder, tmp_path / "out", *ASKED)
    assert "Begun" in output


def test_a_plans_distilled_checkpoint_has_its_own_place(made: Made) -> None:
    origin = Origin("tiny", None, None, None)
    goals = [Goal("any"), Goal("any", distill=1.0), Goal("any", distill=2.0)]
    model = made.folder / "tiny"
    assert len({planned.place(model, PlannedRecovery(origin, g, ()), 1) for g in goals}) == 3


def test_a_plan_has_its_checkpoint_distilled_on_the_device_that_is_there(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, lines = [], []

    def recover(request: runs.Request, out: Path, progress: Any) -> None:
        asked.append(request.distillation)
        shutil.copytree(made.out, out)

    monkeypatch.setattr(runs, "recover", recover)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    run_of = ModelRun("tiny", str(made.folder / "tiny"), ())
    recovery = PlannedRecovery(Origin("tiny", None, None, None), Goal("any", distill=3.0), ())
    for _ in range(2):
        planned.recovered_checkpoint(run_of, recovery, 1, lines.append)
    assert asked == [Distillation(3.0, "cuda")]
    before = made.record.method["distilled"]["held_out_before"]["mean_kl"][0]
    assert all(f"{before:.4f} undistilled" in line for line in lines)
    assert "reused" in lines[1]
