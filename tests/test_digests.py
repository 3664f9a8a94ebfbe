"""Exports keep their bytes: the files of tiny checkpoints have the recorded digests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact import open_artifact
from export.checkpoint import open_checkpoint
from export.formats import load_format
from tests.digests import record
from tests.digests.checkpoints import CHECKPOINTS
from tests.digests.files import HashingWriter, folder_digests, normalised
from tests.digests.tiny import tiny_digests
from tests.exported import export_tiny

pytestmark = pytest.mark.numbers

RECORDED = record.read(record.TINY)
VERSIONED = ["edgeproof.json", "model_fp16.onnx", "onnx/model_fp16.onnx"]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_exported_files_are_the_recorded_ones(tmp_path: Path, name: str) -> None:
    lines = record.differences(RECORDED, name, tiny_digests(name, tmp_path))
    assert not lines, "\n".join(lines)


def test_edgeproofs_version_is_put_aside(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = export_tiny(checkpoint_folder, "onnx", "fp16", tmp_path / "now").path
    for module in ("export.job", "export.onnx.graph"):
        monkeypatch.setattr(f"{module}.__version__", "10.20.30-rc1")
    later = export_tiny(checkpoint_folder, "onnx", "fp16", tmp_path / "later").path
    files = folder_digests(now)
    changed = [name for name in files if (now / name).read_bytes() != (later / name).read_bytes()]
    assert changed == VERSIONED
    assert folder_digests(later) == files


def test_what_is_only_hashed_has_the_digests_of_what_is_written(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(checkpoint_folder)
    for name, dtype in (("onnx", "q4"), ("gguf", "q4_1"), ("mlc", "q4f16_0")):
        folder = export_tiny(checkpoint_folder, name, dtype, tmp_path).path
        written, form, writer = folder_digests(folder), load_format(name), HashingWriter()
        identity = open_artifact(folder).manifest.model
        form.write(checkpoint, identity, form.variant(dtype), writer, lambda count: None)
        del written["edgeproof.json"]
        assert writer.digests == written


def test_every_other_byte_counts(checkpoint_folder: Path, tmp_path: Path) -> None:
    folder = export_tiny(checkpoint_folder, "onnx", "fp16", tmp_path / "out").path
    before = folder_digests(folder)
    for name in before.keys() - {"edgeproof.json"}:
        path = folder / name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    after = folder_digests(folder)
    same = [name for name in before if before[name] == after[name]]
    assert same == ["edgeproof.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {}},
        {"model": {"name": "another"}},
        {"outputs": []},
        {"variant": {"format": "onnx", "name": "fp16", "precision": "fp32"}},
    ],
)
def test_what_a_manifest_says_of_the_files_counts(
    checkpoint_folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = export_tiny(checkpoint_folder, "gguf", "f16", tmp_path / "out").path
    data = (folder / "edgeproof.json").read_bytes()
    changed = json.dumps({**json.loads(data), **change}).encode()
    assert normalised("edgeproof.json", changed) != normalised("edgeproof.json", data)


def test_a_difference_names_the_file_and_a_library_of_another_version() -> None:
    libraries = {**record.installed(("numpy", "onnx")), "onnx": "0.1"}
    recorded = replace(
        RECORDED, libraries=libraries, groups={"llama": {"gguf/f16": {"a": "1", "b": "2"}}}
    )
    assert record.differences(recorded, "llama", {"gguf/f16": {"a": "1", "b": "2"}}) == []
    lines = record.differences(recorded, "llama", {"gguf/f16": {"b": "3", "c": "4"}})
    here = record.installed(("onnx",))["onnx"]
    assert lines == [
        "llama · gguf/f16 · a: not written",
        "llama · gguf/f16 · b: other bytes than recorded",
        "llama · gguf/f16 · c: not in the record",
        "Perhaps not edgeproof but a library writes other bytes:"
        f" onnx is {here} here, 0.1 in the record.",
    ]
