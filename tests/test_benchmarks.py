"""`make bench` runs graphs as they must be run, counts bytes and notices what was missed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import load_file

from benchmarks.audit_memory import Peak, _peaks
from benchmarks.converter import differences
from benchmarks.exporters import CASES, PEERS, folder_bytes, model_bytes
from benchmarks.graph_speed import STEPS, Decoder, only_graph
from benchmarks.promises import Promises
from benchmarks.shapes import FAMILIES, SHAPES, make_shape
from export.checkpoint import open_checkpoint
from runtimes.parity.stages import Spent
from tests.exported import export_tiny
from tests.tolerance import REORDERED_FLOAT32, relative_error

pytestmark = pytest.mark.numbers

IDS = [5, 9, 11, 3, 7, 20]


@pytest.mark.parametrize("graph", ["onnx", "."])
def test_decoding_one_by_one_fills_the_cache_as_a_prefill_does(
    checkpoint_folder: Path, tmp_path: Path, graph: str
) -> None:
    artifact = export_tiny(checkpoint_folder, "onnx", "fp32", tmp_path)
    session = Decoder(only_graph(artifact.path / graph), 1, 2, 16)
    whole = session.extend(IDS, 0, session.empty)
    past = session.extend(IDS[:3], 0, session.empty)
    for position in range(3, len(IDS)):
        past = session.extend(IDS[position : position + 1], position, past)
    for name, value in whole.items():
        assert value.shape()[2] == len(IDS)
        assert relative_error(past[name].numpy(), value.numpy()) < REORDERED_FLOAT32
    decode, prefill = session.measure(IDS * STEPS)
    assert min(decode.wall, decode.cpu, prefill.wall, prefill.cpu) > 0


def test_promises_say_what_was_missed() -> None:
    promises = Promises()
    assert promises.at_most("size", 2.0, 2.0) == "≤ 2"
    assert promises.at_least("speed", 0.5, None) == ""
    assert not promises.missed
    assert promises.at_least("speed", 1.25, 1.3) == "≥ 1.3 missed"
    assert promises.at_most("CPU s", 1.6, 1.5) == "≤ 1.5 missed"
    assert promises.missed == ["speed: 1.25, promised ≥ 1.3", "CPU s: 1.6, promised ≤ 1.5"]


def test_model_bytes_are_graphs_and_weights_under_every_exporters_names(tmp_path: Path) -> None:
    for name in ("model.onnx", "onnx/model.onnx", "onnx/model.onnx_data_1", "model.onnx.data"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"1234")
    (tmp_path / "tokenizer.json").write_bytes(b"12345")
    assert (model_bytes(tmp_path), folder_bytes(tmp_path)) == (16, 21)


def test_each_peer_is_compared_with_a_variant_that_is_exported() -> None:
    variants = {case.variant for case in CASES if case.module == "export.onnx"}
    assert {peer.ours for peer in PEERS} <= variants


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_of_every_family_are_checkpoints_that_take_no_room(
    tmp_path: Path, family: str
) -> None:
    for shape in SHAPES:
        folder = tmp_path / shape
        weights = make_shape(folder, family, shape, sparse=True)
        opened = open_checkpoint(folder)
        assert weights == sum(math.prod(p.shape) for p in opened.parameters)
        taken = sum(path.stat().st_blocks for path in folder.iterdir()) * 512
        assert taken < 10**6 < weights


def test_shapes_hold_values_where_they_are_to_be_rounded(tmp_path: Path) -> None:
    make_shape(tmp_path / "m", "phi3", "135M", sparse=False)
    path = tmp_path / "m" / "model.safetensors"
    tensors = load_file(path)
    assert "model.layers.29.self_attn.qkv_proj.weight" in tensors
    for values in tensors.values():
        assert abs(float(values.astype(np.float32).std()) - 0.02) < 0.01


def test_two_files_differ_in_what_is_named(checkpoint_folder: Path, tmp_path: Path) -> None:
    read = [
        GGUFReader(export_tiny(checkpoint_folder, "gguf", dtype, tmp_path).file(".gguf"))
        for dtype in ("f32", "f16")
    ]
    assert list(differences(read[0], read[0])) == []
    found = list(differences(*read))
    assert found[0].startswith("general.file_type: ")
    assert "tensor token_embd.weight" in found
    assert "tensor output_norm.weight" not in found


def test_a_phase_s_memory_is_the_kernel_s_and_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n")
    spent = Spent("gguf a", "text", 2.0, 3.0)
    events = ({"event": "failed"}, {"event": "spent", **asdict(spent)})
    lines = ["no event\n", *(json.dumps(event) + "\n" for event in events)]
    assert [*_peaks(lines, tmp_path)] == [Peak("gguf a", "text", 2.048, 1.024)]
    assert (tmp_path / "clear_refs").read_text() == "5"
