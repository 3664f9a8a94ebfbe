"""`--verify` finds a file that does not hold, tensor for tensor, what was written."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from export import command
from export.flags import ExportFlags
from export.gguf import FORMAT, exporter, trial, verification
from export.gguf.__main__ import main
from export.gguf.verification import check_tensors
from tests.exported import export_tiny
from tests.test_command_line import run
from tests.tiny import VOCAB, make_checkpoint, write_weights

TENSORS = 29  # 3 layers of 9, the embedding, the last norm


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("verify")
    return export_tiny(make_checkpoint(root / "m"), "gguf", "q8_0", root)


def hashes(path: Path) -> dict[str, str]:
    tensors = gguf.GGUFReader(path).tensors
    return {tensor.name: hashlib.sha256(tensor.data.tobytes()).hexdigest() for tensor in tensors}


def test_what_was_written_passes(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    path = artifact.file(".gguf")
    check_tensors(path, hashes(path))
    monkeypatch.setattr(verification, "CHUNK_BYTES", 1000)
    check_tensors(path, hashes(path))


def last_byte(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def renamed(data: bytes) -> bytes:
    return data.replace(b"blk.1.attn_q.weight", b"blk.7.attn_q.weight")


@pytest.mark.parametrize("damage", [last_byte, cut, renamed])
def test_damage_is_found(
    artifact: Artifact, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = artifact.file(".gguf")
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="verification") as caught:
        check_tensors(copy, hashes(path))
    assert "\n" not in str(caught.value)


def test_the_command_verifies_before_the_artifact_appears(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "m")
    line = ("export.gguf", "--model", model, "--out", tmp_path / "out", "--dtype", "f16,q4_0")
    done = run(*line, "--verify", "--split-max-size", "100K")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"(verified: {TENSORS} tensors)") == 2
    again = run(*line, "--verify", "--split-max-size", "100K")
    assert again.stdout.count("reused") == 2
    assert "verified" not in run(*line).stdout
    assert "--verify" not in run("export.onnx", "--help").stdout


def test_a_file_that_fails_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    pad = exporter.HashedFile.pad

    def shifted(file: exporter.HashedFile, alignment: int) -> None:
        pad(file, alignment)
        file.write(bytes(alignment))  # every later tensor lies 32 bytes too far

    monkeypatch.setattr(exporter.HashedFile, "pad", shifted)
    variants = [(FORMAT, FORMAT.variant("f16"))]
    model = str(make_checkpoint(tmp_path / "m"))
    with pytest.raises(InputError, match="verification: tensor"):
        command.export_variants(
            command.WantedModel(model), variants, tmp_path / "out", ExportFlags(verify=True)
        )
    assert list((tmp_path / "out").rglob("*.gguf")) == []


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """llama.cpp's API, of which a test may replace functions."""
    functions = SimpleNamespace(**vars(trial.load_api()))
    monkeypatch.setattr(trial, "load_api", lambda: functions)
    return functions


def test_a_model_that_runs_in_llama_cpp_passes(artifact: Artifact) -> None:
    assert "finite logits" in trial.try_in_llama_cpp(artifact.file(".gguf"), VOCAB)


def test_the_command_says_what_llama_cpp_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    model = make_checkpoint(tmp_path / "m")
    line = ["--model", str(model), "--out", str(tmp_path / "out"), "--dtype", "f16", "--verify"]
    result = CliRunner().invoke(main, [*line, "--split-max-size", "60K"])
    assert "verified: runs in llama-cpp-python" in result.output
    monkeypatch.setattr(trial, "installed_version", lambda: None)
    result = CliRunner().invoke(main, [*line, "--dtype", "f32", "--dtype", "bf16"])
    assert result.exit_code == 0
    assert result.output.count("(verified: ") == 3
    told = 'not tried in llama.cpp, which is not installed (pip install "edgeproof['
    assert result.output.count(told) == 1


def test_a_model_that_llama_cpp_cannot_load_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    data = artifact.file(".gguf").read_bytes()
    copy.write_bytes(data.replace(b"llama.block_count", b"llama.block_coun_"))
    with pytest.raises(InputError, match=r"copy\.gguf: .*cannot be loaded \(.*block_count"):
        trial.try_in_llama_cpp(copy, VOCAB)


def test_another_vocabulary_is_refused(artifact: Artifact) -> None:
    with pytest.raises(InputError, match="384 tokens there, the checkpoint 385"):
        trial.try_in_llama_cpp(artifact.file(".gguf"), VOCAB + 1)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "all the same")]
)
def test_senseless_logits_are_refused(
    artifact: Artifact, api: SimpleNamespace, value: float, message: str
) -> None:
    rows = (ctypes.c_float * VOCAB)(*[value] * VOCAB)
    api.llama_get_logits_ith = lambda context, index: ctypes.cast(
        rows, ctypes.POINTER(ctypes.c_float)
    )
    with pytest.raises(InputError, match=message) as caught:
        trial.try_in_llama_cpp(artifact.file(".gguf"), VOCAB)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_cannot_be_evaluated_is_refused(
    artifact: Artifact, api: SimpleNamespace
) -> None:
    api.llama_decode = lambda context, batch: -1
    with pytest.raises(InputError, match="cannot be evaluated"):
        trial.try_in_llama_cpp(artifact.file(".gguf"), VOCAB)


def test_a_model_whose_weights_are_zero_is_not_published(tmp_path: Path) -> None:
    """Its logits are all the same: nothing a hash could see."""
    model = make_checkpoint(tmp_path / "m")
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][:] = 0
    write_weights(model, tensors)
    done = run("export.gguf", "-m", model, "-o", tmp_path / "out", "-d", "f16", "--verify")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "all the same" in done.stderr
    assert list((tmp_path / "out").rglob("*.gguf")) == []
