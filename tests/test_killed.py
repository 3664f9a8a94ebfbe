"""Ended at any moment, by Ctrl-C, SIGTERM or kill -9, a command is completed by its next run.

That gives the bytes of an undisturbed run, and nothing half-written stays. Moments are drawn with a
seed, and a failure says which one it was; `make verify` tries more of them than `make test`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeproof.files.atomic import TEMPORARY
from tests.killing import Ended, Moment, Runner, runner
from tests.releases import make_root
from tests.tiny import make_checkpoint

PLAN = """
[[variant]]
format = "gguf"
dtype = "q8_0"

[[variant]]
format = "onnx"
dtype = "fp16"

[[variant]]
format = "mlc"
dtype = "q0f16"
"""
TEXT = "\n\n".join(f"The ferry left harbour {n} at noon, with goats. " * 4 for n in range(2))
# What commands need, and numbers that keep them short.
LIGHT = (
    "export.__main__",
    "export.gguf",
    "export.mlc",
    "export.onnx",
    "onnx",
    "export.release.__main__",
    "export.release.dist",
)
HEAVY = (
    "runtimes.parity.statistics.RESAMPLES=50",
    "runtimes.parity.tokenizer.COUNT=10",
    "runtimes.recover.run.LEAST_HELD=512",
    "runtimes.recover.stages.KEEP_EVERY=0",
    "transformers.models.llama.modeling_llama",
    "scipy.stats",
    "runtimes.parity.run",
    "runtimes.parity.report.outputs",
)
# Fields of parity.json that say how long something took: no two runs have them alike.
TIMED = frozenset(("load_seconds", "prefill_tokens_per_second"))
ENDS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
SEED = 19
# Of the undisturbed time: no two runs take as long, and one that has ended cannot be killed.
SURE = 0.8


@dataclass(frozen=True)
class Command:
    """One that is ended: its arguments below a folder, what it imports, what it says is kept.

    `turns` are those of `make test`, and of `make verify`.
    """

    arguments: str
    modules: tuple[str, ...]
    kept: str
    turns: tuple[int, int]


COMMANDS = {
    "export": Command(
        "export --plan {0}/plan.toml -m {0}/model -o {0}/out",
        LIGHT,
        "the artifacts that are finished are kept",
        (3, 20),
    ),
    "parity": Command(
        "parity {0}/artifacts/tiny/gguf/q8_0 --checkpoint {0}/checkpoint --text {0}/text.txt"
        " --json {0}/out/parity.json --no-html --no-footprint --threads 1 --no-watch",
        HEAVY,
        "reports that are written, what PyTorch said and what was found of each artifact that is"
        " done are kept",
        (2, 6),
    ),
    "recover": Command(
        "recover -m {0}/model --format gguf --bits 5.5 --tokens 512 --threads 1 -o {0}/out/made",
        HEAVY,
        "what is done is kept in the cache",
        (1, 6),
    ),
    "release": Command(
        "release build {0}/artifacts -o {0}/out --version 1",
        LIGHT,
        "the releases that are finished are kept",
        (3, 12),
    ),
}


@pytest.fixture(scope="module")
def runners() -> Iterator[dict[tuple[str, ...], Runner]]:
    """By what is imported."""
    with runner(*LIGHT) as light, runner(*HEAVY) as heavy:
        yield {LIGHT: light, HEAVY: heavy}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is there before a command runs."""
    place = tmp_path_factory.mktemp("before")
    make_root(place)
    shutil.rmtree(place / "artifacts" / "cache")
    make_checkpoint(place / "model", max_position_embeddings=65, num_hidden_layers=1)
    (place / "plan.toml").write_text(PLAN)
    (place / "text.txt").write_text(TEXT)
    for name in ("tmp", "cache", "out"):
        (place / name).mkdir()
    return place


class Place:
    """A folder in which one command is run again and again, each time as if it were new."""

    def __init__(self, folder: Path, before: Path, command: Command, run: Runner) -> None:
        self.folder, self._before, self._command, self._run = folder, before, command, run

    def clear(self) -> None:
        """As before the first run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._before, self.folder)

    def run(self, moment: Moment | None = None) -> Ended:
        return self.other(self._command.arguments, moment)

    def other(self, arguments: str, moment: Moment | None = None) -> Ended:
        """Run a command here."""
        words = [text.format(self.folder) for text in arguments.split()]
        env = {"TMPDIR": self.folder / "tmp", "EDGEPROOF_CACHE": self.folder / "cache"}
        return self._run.run(*words, moment=moment, **env)

    def contents(self) -> dict[str, str]:
        """What it has made: name → its bytes' digest."""
        return {
            path.relative_to(self.folder).as_posix(): content(path)
            for name in ("out", "artifacts")
            for path in sorted((self.folder / name).rglob("*"))
            if path.is_file()
        }

    def left(self) -> list[Path]:
        """Everything temporary, in the cache and where the system has such things too."""
        named = [path for path in self.folder.rglob("*") if path.name.startswith(TEMPORARY)]
        return [*named, *(self.folder / "tmp").iterdir()]

    def clean(self) -> None:
        """What is for what killed runs leave, a while later."""
        for path in self.left():
            os.utime(path, (time.time() - 3600,) * 2)
        for arguments in ("clean {0}/out --stale", "clean --cache"):
            assert self.other(arguments).code == 0
        for path in (self.folder / "tmp").iterdir():  # the system's matter
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def content(path: Path) -> str:
    """The digest of what must be equal of a file."""
    data = path.read_bytes()
    if path.name == "parity.json":
        data = json.dumps(untimed(json.loads(data))).encode()
    return hashlib.sha256(data).hexdigest()


def untimed(value: Any) -> Any:
    """JSON without what no two runs have alike."""
    if isinstance(value, dict):
        return {key: untimed(item) for key, item in value.items() if key not in TIMED}
    return [untimed(item) for item in value] if isinstance(value, list) else value


def moments(calm: Ended, dice: random.Random) -> Iterator[Moment]:
    """By each signal in turn, at a share of the time or of the changes."""
    while True:
        for number in ENDS:
            if dice.random() < 0.5:
                yield Moment(number, seconds=dice.random() * calm.seconds * SURE)
            else:
                yield Moment(number, change=dice.randint(1, calm.changes))


def ended_again_and_again(name: str, turns: int, place: Place) -> None:
    """Run a command undisturbed, then so many times ended at a moment and completed."""
    kept = f"interrupted: {COMMANDS[name].kept}; the same command"
    place.clear()
    calm = place.run()
    assert calm.code in (0, 1), calm.output  # whatever the verdict of a tiny model
    assert place.left() == []
    whole, ended = place.contents(), 0
    drawn = moments(calm, random.Random(f"{SEED} {name}"))
    for turn, moment in zip(range(turns), drawn, strict=False):
        said = f"{name}, turn {turn}: {moment}"
        place.clear()
        killed = place.run(moment)
        done = killed.code == calm.code  # before its moment: quicker than the undisturbed run
        ended += not done
        assert done or killed.code == ENDS[moment.number], f"{said}\n{killed.output}"
        if moment.number != signal.SIGKILL:
            assert place.left() == [], said
            assert done or killed.output.splitlines()[-1].startswith(kept), said
        again = place.run()
        assert again.code == calm.code, f"{said}\n{again.output}"
        if moment.number == signal.SIGKILL:
            place.clean()
        assert place.left() == [], said
        assert place.contents() == whole, said
    assert ended >= turns / 2


@pytest.fixture
def place(name: str, runners: dict[tuple[str, ...], Runner], before: Path, tmp_path: Path) -> Place:
    command = COMMANDS[name]
    return Place(tmp_path / "place", before, command, runners[command.modules])


@pytest.mark.parametrize("name", COMMANDS)
def test_what_was_ended_is_completed_by_the_next_run(name: str, place: Place) -> None:
    ended_again_and_again(name, COMMANDS[name].turns[0], place)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_at_many_moments(name: str, place: Place) -> None:
    ended_again_and_again(name, COMMANDS[name].turns[1], place)
