"""Short runs where users run an export and the whole run did not: here on a stand-in for WebGPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeproof.artifact import Artifact
from edgeproof.artifact.run_record import ModelRun, PlannedArtifact, RunRecord
from edgeproof.errors import InputError
from edgeproof.verdicts import ELSEWHERE, Verdict, read_short_runs, write_short_runs
from runtimes import onnxruntime
from runtimes.footprint import Crash
from runtimes.parity import elsewhere
from runtimes.parity.elsewhere import left_open, main
from tests.exported import export_tiny
from tests.tiny import make_checkpoint

WEBGPU = "browser, WebGPU with f16"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with what an export leaves: fp16 in two formats, and float32."""
    folder = tmp_path_factory.mktemp("elsewhere")
    checkpoint = make_checkpoint(folder / "checkpoint")
    root = folder / "artifacts"
    kinds = (("onnx", "fp16"), ("onnx", "fp32"), ("gguf", "f16"))
    made = [export_tiny(checkpoint, *kind, root) for kind in kinds]
    paths = [PlannedArtifact(item.path.relative_to(root).as_posix(), False) for item in made]
    label = made[0].path.relative_to(root).parts[0]
    RunRecord((ModelRun(label, str(checkpoint), tuple(paths)),), {}).save(root)
    return root


class Broken(onnxruntime.OnnxRuntime):
    """Gives no numbers, as where float16 overflows."""

    def _extend(self, ids: np.ndarray, every: bool) -> np.ndarray:
        return super()._extend(ids, every) * np.float32(np.nan)


def run(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: type = onnxruntime.OnnxRuntime, *more: str
) -> Any:
    """The command, on the CPU in place of a GPU."""
    for path in root.glob(f"*/{ELSEWHERE}"):
        path.unlink()

    def opened(artifact: Artifact, threads: int, other: str | None) -> Any:
        assert other == "webgpu"
        runtime = onnxruntime.open_runtime(artifact, threads)
        runtime.__class__ = kind
        return runtime

    monkeypatch.setattr(elsewhere, "open_runtime", opened)
    monkeypatch.setattr(elsewhere, "footprint", lambda *_, **__: None)
    options = [str(root), "--budget", "fast", "--positions", "100", "--threads", "1", *more]
    return CliRunner().invoke(main, options)


def test_only_what_the_whole_run_left_open_and_can_be_run_here_is_asked(exported: Path) -> None:
    record = json.loads((exported / "run.json").read_text())
    artifacts = [
        elsewhere.open_artifact(exported / item["path"])
        for item in record["models"][0]["artifacts"]
    ]
    (asked,) = (item for each in artifacts for item in left_open(each, allow_degraded=False))
    assert asked.artifact.manifest.variant.name == "fp16"
    assert (asked.runtime, asked.place.name) == ("webgpu", WEBGPU)
    assert asked.unseen.startswith("not run in browser, WebGPU")


def test_some_texts_are_judged_and_what_that_leaves_open_is_said(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(exported, monkeypatch).exit_code == 0
    (path,) = exported.glob(f"*/{ELSEWHERE}")
    (found,) = read_short_runs(path)
    assert (found.format, found.variant) == ("onnx", "fp16")
    assert found.positions >= 100 and found.documents >= 3
    assert found.mean_kl is not None and found.mean_kl < 1e-3
    # Fewer clear positions than a count needs
    assert found.verdict is Verdict.INCONCLUSIVE
    assert f"{found.positions} positions of {found.documents} texts" in found.text
    assert "Replies, batches and long texts were not run there" in found.text
    write_short_runs(path, [found])
    assert read_short_runs(path) == (found,)


def test_the_time_ends_it_after_a_whole_text(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(0, 10**6, 100))
    monkeypatch.setattr(elsewhere.time, "monotonic", lambda: float(next(ticks)))
    run(exported, monkeypatch, onnxruntime.OnnxRuntime, "--seconds", "150")
    (found,) = read_short_runs(next(exported.glob(f"*/{ELSEWHERE}")))
    assert found.documents == 2


def test_no_numbers_there_are_a_failure_and_kept(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(exported, monkeypatch, Broken)
    assert result.exit_code == 1
    assert "1 did not pass" in result.output
    (found,) = read_short_runs(next(exported.glob(f"*/{ELSEWHERE}")))
    assert found.verdict is Verdict.FAIL
    assert "NaN or infinite logits" in found.reasons[0]
    # The same bytes are not run again
    monkeypatch.setattr(elsewhere, "run_short", None)
    assert "1 did not pass" in CliRunner().invoke(main, [str(exported)]).output


def test_a_crash_there_is_a_failure(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise Crash("the runtime crashes: its process was ended by SIGSEGV")

    monkeypatch.setattr(elsewhere, "footprint", crash)
    for path in exported.glob(f"*/{ELSEWHERE}"):
        path.unlink()
    options = [str(exported), "--budget", "fast", "--positions", "100", "--threads", "1"]
    assert CliRunner().invoke(main, options).exit_code == 1
    (found,) = read_short_runs(next(exported.glob(f"*/{ELSEWHERE}")))
    assert found.reasons == ("the runtime crashes: its process was ended by SIGSEGV",)


def test_without_a_device_nothing_is_written_and_it_is_said(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise InputError("no GPU is found here")

    monkeypatch.setattr(elsewhere, "footprint", none)
    for path in exported.glob(f"*/{ELSEWHERE}"):
        path.unlink()
    options = [str(exported), "--budget", "fast", "--positions", "100", "--threads", "1"]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0
    assert "not run: " in result.output and "no GPU is found here" in result.output
    assert not list(exported.glob(f"*/{ELSEWHERE}"))
