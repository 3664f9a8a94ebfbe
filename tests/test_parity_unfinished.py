"""A command that is interrupted goes on: what it found of each artifact is kept until the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from edgeproof.artifact import Artifact
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile
from export.clean import main as clean_main
from export.status import main as status_main
from runtimes.computing import AUTOMATIC, ON_CPU
from runtimes.parity import run as parity_run
from runtimes.parity import statistics, tokenizer, unfinished
from runtimes.parity.__main__ import main as parity_main
from runtimes.parity.finished import Compared
from runtimes.parity.run import EVERYTHING, Conditions, Extent, ParityRun
from runtimes.parity.steps.timed import untimed
from runtimes.parity.text_options import chosen_suite
from runtimes.parity.unfinished import KIND, LONGEST, Unfinished
from tests.exported import export_tiny
from tests.parity_runs import invoke
from tests.tiny import make_checkpoint

TEXT = "\n\n".join(f"The ferry left harbour {n} at noon, with goats. " * 4 for n in range(3))
INPUTS = (OutputFile("config.json", 2, "0" * 64),)


def test_all_that_may_find_something_else_has_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ["cpu"]
    monkeypatch.setattr(
        unfinished, "chosen_device", lambda name: found[0] if name == "auto" else name
    )
    conditions = Conditions(chosen_suite("fast", None), 1, {})

    def place(
        extent: Extent = EVERYTHING, inputs: Sequence[OutputFile] = INPUTS, **how: Any
    ) -> Path:
        asked = ParityRun(tmp_path, [], replace(conditions, extent=extent, **how))
        made = Unfinished().folder(asked, inputs, INPUTS)
        assert made is not None
        return made

    first = place()
    assert first == place(replace(EVERYTHING, computing=AUTOMATIC))
    assert first == place(replace(EVERYTHING, computing=ON_CPU))
    others = [
        place(threads=2),
        place(gates={"fp32": {"mean_kl": 0.1}}),
        place(suite=chosen_suite("default", None)),
        place(replace(EVERYTHING, whole_text=False)),
        place(inputs=(OutputFile("config.json", 2, "1" * 64),)),
    ]
    found[0] = "cuda"  # as where a GPU is hidden no longer
    others.append(place())
    found[0] = "cpu"
    monkeypatch.setattr(unfinished, "code_behind", lambda name: {"runtimes": "edited"})
    others.append(place())
    assert len({first, *others}) == 1 + len(others)


def test_what_nobody_goes_on_with_is_removed(tmp_path: Path) -> None:
    old, new = (cache_folder() / KIND / name for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    then = time.time() - LONGEST - 60
    os.utime(old, (then, then))
    asked = ParityRun(tmp_path, [], Conditions(chosen_suite("fast", None), 1, {}))
    Unfinished().folder(asked, INPUTS, INPUTS)
    assert (old.exists(), new.exists()) == (False, True)


class Interrupted:
    """Two artifacts, of which the comparison of one `ends_at` may end; which ones were `begun`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.checkpoint = make_checkpoint(folder / "tiny")
        self.made: list[Artifact] = [
            export_tiny(self.checkpoint, "gguf", name, folder / "out") for name in ("f16", "q8_0")
        ]
        self.text = folder / "text.txt"
        self.text.write_text(TEXT)
        self.begun: list[str] = []
        self.ends_at: str | None = None
        compare = parity_run._compare

        def noted(artifact: Artifact, *more: Any) -> Compared:
            self.begun.append(artifact.path.name)
            if artifact.path.name == self.ends_at:
                raise KeyboardInterrupt
            return compare(artifact, *more)

        monkeypatch.setattr(parity_run, "_compare", noted)
        monkeypatch.setattr(tokenizer, "COUNT", 10)
        monkeypatch.setattr(statistics, "RESAMPLES", 50)

    def compare(self, report: Path, *more: str | Path) -> Result:
        return invoke(
            parity_main, *(item.path for item in self.made), "--checkpoint", self.checkpoint,
            "--text", self.text, "--threads", 1, "--no-footprint", "--no-html", "--no-watch",
            "--allow-degraded", "--json", report, *more,
        )  # fmt: skip


def contents(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report.read_text("utf-8"))
    return untimed(found)


def test_the_same_command_goes_on_with_the_next_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, kept = Interrupted(tmp_path, monkeypatch), cache_folder() / KIND
    calm = run.compare(tmp_path / "calm.json")
    assert not [*kept.glob("*")]  # of what was done with all its artifacts
    run.ends_at = "q8_0"
    ended = run.compare(tmp_path / "again.json")
    assert ended.exit_code == 130, ended.output
    assert "found of each artifact that is done are kept; the same command goes on" in ended.output
    assert KIND in invoke(status_main, "--cache").output
    run.ends_at = None
    again = run.compare(tmp_path / "again.json")
    assert run.begun == ["f16", "q8_0", "f16", "q8_0", "q8_0"]
    assert again.exit_code == calm.exit_code == 0, again.output
    assert contents(tmp_path / "again.json") == contents(tmp_path / "calm.json")
    assert not [*kept.glob("*")]


def test_what_has_changed_since_then_is_compared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Interrupted(tmp_path, monkeypatch)
    run.ends_at = "q8_0"
    assert run.compare(tmp_path / "a.json").exit_code == 130
    cleaned = invoke(clean_main, f"--cache={KIND}", "--dry-run")
    assert (cleaned.exit_code, KIND in cleaned.output) == (0, True)
    assert run.compare(tmp_path / "a.json", "--localise").exit_code == 130
    assert run.begun == ["f16", "q8_0"] * 2
    path = run.made[0].file(".gguf")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the manifest is as it was
    path.write_bytes(data)
    run.ends_at = None
    assert run.compare(tmp_path / "a.json").exit_code == 1
    assert run.begun == ["f16", "q8_0"] * 3
