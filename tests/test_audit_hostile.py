"""Files that were damaged or made to harm an audit: one line, exit code 2, nothing overwritten."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result

from edgeproof.artifact import MANIFEST
from edgeproof.errors import DamagedExportError, InputError
from runtimes.audit.__main__ import _itself, main
from runtimes.audit.onnx import MOST_CHUNKS
from runtimes.audit.subjects import found_in, subjects
from runtimes.parity.blame import blame
from tests import tiny_gguf
from tests.exported import export_tiny

NUMBER, FLOAT, TEXT, ARRAY = 4, 6, 8, 9


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(path: Path, keys: Mapping[str, tuple[int, bytes]], axes: int = 2) -> Path:
    """A file of version 3 with these keys (type, bytes) and one float32 tensor of no values."""
    content = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys))
    for key, (kind, value) in keys.items():
        content += text(key) + struct.pack("<I", kind) + value
    content += text("blk.0.attn_q.weight") + struct.pack(f"<I{axes}Q", axes, *[1] * axes)
    content += struct.pack("<IQ", 0, 0)
    path.write_bytes(content + bytes(64))
    return path


def number(value: int) -> tuple[int, bytes]:
    return NUMBER, struct.pack("<I", value)


HOSTILE: dict[str, tuple[Mapping[str, tuple[int, bytes]], int]] = {
    "alignment 0": ({"general.alignment": number(0)}, 2),
    "alignment of infinity": ({"general.alignment": (FLOAT, struct.pack("<f", float("inf")))}, 2),
    "alignment of a list": (
        {"general.alignment": (ARRAY, struct.pack("<IQII", NUMBER, 2, 1, 1))}, 2,
    ),
    "no axes": ({}, 0),
    "nested lists": ({"deep": (ARRAY, struct.pack("<IQ", ARRAY, 1) * 20_000)}, 2),
    "tokens that are a number": (
        {"tokenizer.ggml.tokens": number(7), "tokenizer.ggml.eos_token_id": number(2)}, 2,
    ),
}  # fmt: skip


def audit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--no-watch"])


def refused(path: Path, *said: str) -> None:
    done = audit(path, "--inspect")
    assert done.exit_code == 2, done.output
    assert len(done.output.strip().splitlines()) == 1
    assert all(item in done.output for item in said)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_gguf_is_one_line(tmp_path: Path, case: str) -> None:
    keys, axes = HOSTILE[case]
    refused(gguf(tmp_path / "m.gguf", keys, axes), "m.gguf")


@pytest.mark.parametrize("name", ["m-00001-of-00000.gguf", "m-00003-of-00002.gguf"])
def test_a_split_of_fewer_is_one_line(tmp_path: Path, name: str) -> None:
    refused(gguf(tmp_path / name, {}), name, "a split")
    refused(tmp_path, name)


def test_an_end_beyond_the_vocabulary_is_told_of(tmp_path: Path) -> None:
    tokens = struct.pack("<IQ", TEXT, 1) + text("a")
    keys = {"tokenizer.ggml.tokens": (ARRAY, tokens), "tokenizer.ggml.eos_token_id": number(9)}
    done = audit(gguf(tmp_path / "m.gguf", keys), "--inspect")
    assert done.exit_code == 0, done.output
    assert "warning: stop token eos 9 (no such token)" in done.output


def test_what_a_file_says_forges_no_line(tmp_path: Path) -> None:
    evil = "good\nwarning: forged\x1b[2J\x1b]0;title\x07" + 100_000 * "x"
    path = gguf(tmp_path / "m.gguf", {"general.name": (TEXT, text(evil))})
    done = audit(path, "--inspect")
    assert done.exit_code == 0, done.output
    assert not any(line.startswith("warning") for line in done.output.splitlines())
    assert done.output.replace("\n", "").isprintable()
    assert len(done.output) < 5000
    assert "good?warning: forged?[2J" in done.output


BESIDE = {
    "lora": ({"general.type": (TEXT, text("adapter"))}, "a LoRA adapter, no model"),
    "mmproj": ({"general.type": (TEXT, text("mmproj"))}, "a projector of images or sound"),
    "old": ({"general.architecture": (TEXT, text("clip"))}, "a projector of images or sound"),
    "imatrix": ({"general.type": (TEXT, text("imatrix"))}, "an importance matrix, no model"),
}


def test_what_is_loaded_beside_a_model_is_none(tmp_path: Path) -> None:
    for name, (keys, said) in BESIDE.items():
        refused(gguf(tmp_path / f"{name}.gguf", keys), f"{name}.gguf", said)
    refused(tmp_path, "(and 3 more cannot be audited)")
    gguf(tmp_path / "model.gguf", {})
    done = audit(tmp_path, "--inspect", "--json", tmp_path / "audit.json")
    assert done.exit_code == 0, done.output
    assert done.output.count("note: passed over: ") == len(BESIDE)
    said = json.loads((tmp_path / "audit.json").read_text())
    assert [item["name"] for item in said["files"]] == ["model"]
    assert {Path(item["path"]).stem for item in said["passed_over"]} == set(BESIDE)
    done = audit(tmp_path / "model.gguf", tmp_path / "lora.gguf", "--inspect")  # it was named
    assert (done.exit_code, "cannot be audited" in done.output) == (2, True)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own exports without their manifests."""
    folder = tmp_path_factory.mktemp("exports")
    model = tiny_gguf.write(folder / "model").checkpoint
    for form, variant in (("onnx", "fp32"), ("mlc", "q4f16_1")):
        artifact = export_tiny(model, form, variant, folder)
        (artifact.path / MANIFEST).unlink()
        artifact.path.rename(folder / form)
    return folder


def first_record(index: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = index["records"][0]
    return found


DAMAGE: dict[str, tuple[str, str, Callable[[dict[str, Any]], object]]] = {
    "GenAI's model a list": ("onnx", "genai_config.json", lambda raw: raw.update(model=[])),
    "js_config a text": (
        "onnx", "config.json", lambda raw: raw.update({"transformers.js_config": "x"}),
    ),
    "tokenizer_files a number": (
        "mlc", "mlc-chat-config.json", lambda raw: raw.update(tokenizer_files=5),
    ),
    "no records": ("mlc", "tensor-cache.json", lambda raw: raw.update(records=[])),
    "a number for a path": (
        "mlc", "tensor-cache.json", lambda raw: first_record(raw).update(dataPath=5),
    ),
    "infinite bytes": (
        "mlc", "tensor-cache.json", lambda raw: first_record(raw).update(nbytes=float("inf")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_hostile_folder_is_one_line_or_inspected(exports: Path, case: str) -> None:
    form, name, change = DAMAGE[case]
    path = exports / form / name
    before = path.read_bytes()
    raw = json.loads(before)
    change(raw)
    path.write_text(json.dumps(raw))
    try:
        done = audit(exports / form, "--inspect")
    finally:
        path.write_bytes(before)
    assert done.exit_code in (0, 2), done.output
    assert done.exit_code == 0 or len(done.output.strip().splitlines()) == 1


def test_a_graph_without_logits_is_passed_over(exports: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exports / "onnx", tmp_path / "a & <b>"))
    graph = onnx.load(folder / "onnx" / "model.onnx", load_external_data=False)
    outputs = [item for item in graph.graph.output if item.name != "logits"]
    del graph.graph.output[:]
    graph.graph.output.extend(outputs)
    onnx.save(graph, folder / "onnx" / "vision_encoder.onnx")
    found = found_in([folder])
    assert [item.name for item in found.inspected] == [
        "a & <b>/model.onnx", "a & <b>/onnx/model.onnx",
    ]  # fmt: skip
    (beside,) = found.passed_over
    assert "no language model: it gives present.0.key" in beside.reason
    refused(folder / "onnx" / "vision_encoder.onnx", "no language model")


def test_more_data_files_than_any_graph_has_are_not_counted(exports: Path) -> None:
    path = exports / "onnx" / "config.json"
    before = path.read_bytes()
    raw = json.loads(before)
    raw["transformers.js_config"] = {"use_external_data_format": 10**12}
    path.write_text(json.dumps(raw))
    try:
        warnings = [text for item in subjects([exports / "onnx"]) for text in item.warnings]
    finally:
        path.write_bytes(before)
    assert max(map(len, warnings)) < 100 * MOST_CHUNKS


def test_a_damaged_file_hides_no_other(exports: Path, tmp_path: Path) -> None:
    good = tiny_gguf.write(tmp_path / "made").path.rename(tmp_path / "good.gguf")
    (tmp_path / "bad.gguf").write_bytes(good.read_bytes()[:1000])
    done = audit(tmp_path, exports / "onnx", "--inspect", "--json", tmp_path / "audit.json")
    assert done.exit_code == 2
    assert "gguf good" in done.output
    *_, last = done.output.strip().splitlines()
    assert last.startswith("error: 1 of 4 files cannot be audited: ")
    assert "bad.gguf" in last
    said = json.loads((tmp_path / "audit.json").read_text())
    assert len(said["files"]) == 3
    assert [Path(item["path"]).name for item in said["refused"]] == ["bad.gguf"]


def test_several_that_are_all_damaged_are_one_line(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"<html>")
    refused(tmp_path, "a web page", "(and 1 more cannot be audited)")


def test_graphs_of_one_name_are_told_apart_by_their_folders(exports: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exports / "onnx", tmp_path / "loose")
    names = [item.name for item in subjects([Path(folder)])]
    assert names == ["loose/model.onnx", "loose/onnx/model.onnx"]


def test_nobody_is_told_to_export_what_others_made(exports: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exports / "mlc", tmp_path / "mlc"))
    (folder / "mlc-chat-config.json").write_text("{")
    refused(folder, "mlc-chat-config.json: cannot be read", "download it again, or ask its maker")
    for error in (DamagedExportError("x: short"), InputError("x")):
        assert "export" not in blame(error, foreign=True)
    assert blame(DamagedExportError("x: short")) == "x: short; export it again"


def test_nothing_that_is_read_is_written_over(tmp_path: Path) -> None:
    made = tiny_gguf.write(tmp_path / "a", "Q8_0")
    file, config = made.path, made.checkpoint / "config.json"
    before = {path: path.read_bytes() for path in (file, config)}
    for arguments in (
        ("--inspect", "--json", file),
        ("--against", made.checkpoint, "--json", file),
        ("--against", made.checkpoint, "--markdown", config),
        ("--against", file, "--markdown", file),
        ("--against", made.checkpoint, "--json", tmp_path / "x", "--markdown", tmp_path / "x"),
    ):
        done = audit(file, *arguments)
        assert done.exit_code == 2, arguments
        assert "is read, it must not be written" in done.output or "two outputs" in done.output
    assert {path: path.read_bytes() for path in before} == before


def test_a_rounded_file_as_the_original_is_told_of(tmp_path: Path) -> None:
    for kind, more in (("F32", ""), ("Q8_0", "; its weights are Q8_0: what that cost them does")):
        path = tiny_gguf.write(tmp_path / kind, kind).path
        assert (f"itself, not what that file was made from{more}") in _itself(path)
        assert ("does not show" in _itself(path)) == bool(more)
    path.write_bytes(b"GGUF")
    done = audit(tmp_path / "F32" / "tiny.gguf", "--against", path)
    assert (done.exit_code, "tiny.gguf" in done.output.splitlines()[-1]) == (2, True)


def test_what_inspecting_cannot_use_is_refused(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", {})
    for option in ("--markdown", "--against", "--badge", "--receipt", "--runtime"):
        value = "openvino" if option == "--runtime" else tmp_path / "a"
        done = audit(path, "--inspect", option, value)
        said = "leave --against, --markdown, --badge, --receipt and --runtime out"
        assert (done.exit_code, said in done.output) == (2, True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.parametrize("name", ["model.gguf", "model.onnx", "model.safetensors"])
def test_a_pipe_among_files_is_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    os.mkfifo(tmp_path / name)
    done = CliRunner().invoke(main, [str(tmp_path), "--inspect"])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "no regular file" in done.output or "holds nothing that can be audited" in done.output
