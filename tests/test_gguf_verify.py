"""`--verify` finds a file that does not hold, tensor for tensor, what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from export import command
from export.artifact import Artifact
from export.errors import InputError
from export.gguf import FORMAT, exporter, verification
from export.gguf.verification import check_tensors
from tests.exported import export_tiny
from tests.test_command_line import run
from tests.tiny import make_checkpoint

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
            model, None, variants, tmp_path / "out", command.Handling(verify=True)
        )
    assert list((tmp_path / "out").rglob("*.gguf")) == []
