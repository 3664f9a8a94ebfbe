"""Memory, load time and speed of a runtime, measured where nothing else runs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from runtimes.footprint import (
    BRIEF,
    WHOLE,
    Crash,
    Footprint,
    _measure,
    _told,
    footprint,
    main,
)
from runtimes.load import Load
from tests.exported import export_tiny
from tests.tiny import make_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("footprint") / "tiny")


@pytest.fixture(scope="module")
def gguf(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export_tiny(checkpoint, "gguf", "f32", tmp_path_factory.mktemp("gguf"))


def test_everything_is_measured_and_a_short_context_shortens_the_prompt(gguf: Artifact) -> None:
    found = footprint(gguf, 1)
    assert (found.prefill_tokens, found.decode_tokens) == (256 - WHOLE.decode, WHOLE.decode)
    assert 0 < found.load_seconds < 60
    assert found.prefill_tokens_per_second > found.decode_tokens_per_second > 1
    assert found.prefill_tokens_per_cpu_second > found.decode_tokens_per_cpu_second > 1
    assert (found.runs, found.threads) == (WHOLE.runs, 1)
    assert 0 < found.load_cpu_seconds < 60


@pytest.mark.parametrize(("context", "decode"), [(256, 16), (20, 10), (16, 8), (2, 1), (1, 0)])
def test_a_context_hardly_longer_than_the_reply_leaves_room_for_a_prompt(
    context: int, decode: int
) -> None:
    assert WHOLE.within(context).decode == decode < context


def test_speeds_are_medians_and_a_slow_runtime_runs_once(
    gguf: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clocks(*times: float) -> None:
        """Of opening and all, then of reading and writing in turns."""
        left = iter([1.0, *times])

        class Clock:
            def __init__(self) -> None:
                self.seconds = next(left)

            def load(self) -> Load:
                return Load(self.seconds, 2 * self.seconds, 0.5)

        monkeypatch.setattr("runtimes.footprint.Meter", Clock)

    monkeypatch.setattr("runtimes.footprint.ENOUGH", 100.0)
    clocks(9.0, 1.0, 1.0, 9.0, 2.0, 2.0)
    found = _measure(gguf, 1, None, WHOLE)
    assert found.runs == WHOLE.runs
    assert found.prefill_tokens_per_second == found.prefill_tokens / 2
    assert found.prefill_tokens_per_cpu_second == found.prefill_tokens / 4
    assert found.decode_tokens_per_second == WHOLE.decode / 2
    monkeypatch.setattr("runtimes.footprint.ENOUGH", 5.0)
    clocks(4.0, 2.0)
    found = _measure(gguf, 1, None, WHOLE)
    assert (found.runs, found.decode_tokens_per_second) == (1, WHOLE.decode / 2)


def test_the_command_warns_where_others_took_the_cores(
    gguf: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = replace(_measure(gguf, 1, None, WHOLE), other_cores=1.25, disturbed=True)
    for found, shown in ((measured, True), (replace(measured, disturbed=False), False)):
        monkeypatch.setattr("runtimes.footprint._measure", lambda *_, found=found: found)
        done = CliRunner().invoke(main, [str(gguf.path), "--threads=1"])
        assert json.loads(done.stdout)["other_cores"] == 1.25
        assert ("warning: other programs took 1.2 cores" in done.stderr) == shown


def test_a_larger_model_needs_about_its_weights_more(gguf: Artifact, tmp_path: Path) -> None:
    """80 MB of float32 weights more are seen, and this process's own memory is not."""
    ballast = bytearray(300_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    large = make_checkpoint(tmp_path / "large", hidden_size=512, intermediate_size=4096)
    artifact = export_tiny(large, "gguf", "f32", tmp_path)
    megabytes = sum(item.bytes for item in artifact.manifest.outputs) / 1e6
    difference = footprint(artifact, 1).peak_mb - footprint(gguf, 1).peak_mb
    assert 0.8 * megabytes < difference < megabytes + 40
    del ballast


@pytest.mark.slow
def test_what_a_runtime_compiles_is_not_counted(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "compiled"))
    artifact = export_tiny(checkpoint, "mlc", "q0f16", tmp_path)
    assert not (cache_folder() / "tvm").exists()
    first, second = footprint(artifact, 1), footprint(artifact, 1)
    assert first.load_seconds < 10 * second.load_seconds
    assert abs(first.peak_mb - second.peak_mb) < 0.5 * second.peak_mb


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import os; os.kill(os.getpid(), 6)", "crashes: its process was ended by SIGABRT"),
        ("raise RuntimeError('no kernel')", "fails: RuntimeError: no kernel"),
    ],
)
def test_a_crash_is_told_from_a_refusal(
    gguf: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    (tmp_path / "llama_cpp.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Crash, match=reason):
        footprint(gguf, 1)


def test_a_refused_artifact_is_bad_input_in_the_runtimes_words(
    checkpoint: Path, tmp_path: Path
) -> None:
    artifact = export_tiny(checkpoint, "onnx", "fp32", tmp_path)
    graph = artifact.path / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(InputError, match="ONNX Runtime cannot load it"):
        footprint(open_artifact(artifact.path), 1)


def test_the_command_prints_json(gguf: Artifact) -> None:
    command = [sys.executable, "-m", "runtimes.footprint", str(gguf.path), "--threads=1"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Footprint(**json.loads(result.stdout)).decode_tokens == WHOLE.decode


def test_a_runtime_that_hangs_is_ended_with_a_reason(
    gguf: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.footprint.LIMIT", 1.0)
    (tmp_path / "llama_cpp.py").write_text("print('busy', flush=True)\nwhile True: pass")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Crash, match="hangs: not done after 1 seconds"):
        footprint(gguf, 1)


def test_what_was_measured_holds_where_the_process_does_not_end(
    gguf: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measured = _measure(gguf, 1, None, BRIEF)
    output = f"a library's words\n{json.dumps(asdict(measured))}\n"
    assert _told(output.encode()) == measured
    assert "did not end" in caplog.text
