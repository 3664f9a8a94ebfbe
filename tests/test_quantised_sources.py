"""A quantised checkpoint as a model: a plain one in the cache, which everything else uses."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeproof.quantised import QUANTISED_RECORD, read_quantised_record
from export.checkpoint import open_checkpoint
from export.gguf import storage as gguf
from export.mlc import schemes as mlc
from export.onnx.blocks import BLOCKS
from export.onnx.bnb4 import GRID as NF4
from export.rounding.cast import FLOAT16
from export.rounding.grid import Grid
from export.rounding.lattice import find_lattice
from export.sources import resolve
from export.sources.adapters import AdapterRequest
from runtimes.formats import dequantise
from runtimes.parity.original import reading_of
from tests import quantised as q
from tests.lora import make_lora
from tests.test_quantised_readers import GPTQ, INT8, KINDS, values
from tests.test_recovered_export import export
from tests.tiny import PHI3, change_json, make_checkpoint, write_weights

DOWN = "model.layers.0.mlp.down_proj"


def of_kind(folder: Path, kind: str, *only: str) -> Path:
    settings, store, _ = KINDS[kind]
    return q.make_quantised(folder, settings, store, only=only, num_hidden_layers=1)


def test_it_becomes_a_plain_checkpoint_with_its_own_identity(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, store, _ = KINDS["gptq"]
    folder = q.make_quantised(tmp_path / "model", settings, store, shards=3, num_hidden_layers=1)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    source = resolve(str(folder))
    assert (source.label, source.name, source.repo) == ("model", None, None)
    assert "7 quantised weights (GPTQ version 1, 4 bits, groups of 32, in order)" in caplog.text
    record = read_quantised_record(source.path)
    assert record is not None
    assert record.method == "gptq"
    named = {item.path for item in record.files}
    assert {"config.json", "README.md", "model-00003-of-00003.safetensors"} <= named
    assert str(tmp_path) not in (source.path / QUANTISED_RECORD).read_text()
    checkpoint = open_checkpoint(source.path)
    assert QUANTISED_RECORD in {path.name for path in checkpoint.input_files}
    raw = json.loads((source.path / "config.json").read_text())
    assert "quantization_config" not in raw
    assert raw["torch_dtype"] == "float32"
    before, after = q.stored(folder), load_file(source.path / "model.safetensors")
    for name in before.keys() & after.keys():  # what was not quantised
        assert after[name].tobytes() == before[name].tobytes()
        assert after[name].dtype == np.float16
    assert reading_of(source.path).startswith(", 7 quantised weights (GPTQ")
    assert reading_of(folder) == ""


def test_it_is_made_once_for_the_same_bytes(tmp_path: Path) -> None:
    folder = of_kind(tmp_path / "model", "awq", DOWN)
    first = resolve(str(folder)).path
    made = (first / "model.safetensors").stat().st_mtime_ns
    assert resolve(str(folder)).path == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    found = q.stored(folder)
    found[f"{DOWN}.scales"] = found[f"{DOWN}.scales"] * np.float16(2)
    write_weights(folder, found)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert resolve(str(folder)).path != first


def test_weights_that_are_stored_as_floats_are_used_where_they_lie(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for method in ("bitsandbytes", "gptq", "aqlm"):
        folder = make_checkpoint(tmp_path / method, num_hidden_layers=1)
        change_json(folder / "config.json", quantization_config={"quant_method": method})
        assert resolve(str(folder)).path == folder
    assert not caplog.records
    open_checkpoint(folder)
    assert "quantization_config (aqlm) is a leftover" in caplog.text


def test_an_adapter_is_merged_into_a_quantised_base(tmp_path: Path) -> None:
    """As QLoRA trained it: base + change, of the base as it is stored."""
    plain = make_checkpoint(tmp_path / "plain", num_hidden_layers=1)
    lora = make_lora(tmp_path / "lora", plain)
    folder = of_kind(tmp_path / "base", "nf4 twice")
    base = resolve(str(folder)).path
    merged = resolve(str(folder), None, [AdapterRequest(str(lora))]).path
    again = resolve(str(base), None, [AdapterRequest(str(lora))]).path
    assert merged.name[-16:] == again.name[-16:]  # of the content
    before, after = (load_file(path / "model.safetensors") for path in (base, merged))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not np.array_equal(before[name], after[name])


def test_bitsandbytes_need_not_name_itself(tmp_path: Path) -> None:
    settings, store, _ = KINDS["nf4"]
    unnamed = {key: value for key, value in settings.items() if key != "quant_method"}
    folder = q.make_quantised(tmp_path / "model", unnamed, store, only=[DOWN], num_hidden_layers=1)
    record = read_quantised_record(resolve(str(folder)).path)
    assert record is not None
    assert record.method == "bitsandbytes"


def test_a_fused_projection_is_read_as_one(tmp_path: Path) -> None:
    settings, store, _ = KINDS["gptq"]
    folder = q.make_quantised(
        tmp_path / "model", settings, store, **{**PHI3, "num_hidden_layers": 1}
    )
    found = open_checkpoint(resolve(str(folder)).path)
    assert found.stored_dtype("model.layers.0.self_attn.k_proj.weight") == np.float32
    assert "model.layers.0.self_attn.qkv_proj.qweight" in q.stored(folder)


def test_biases_of_zeros_that_the_library_adds_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = of_kind(tmp_path / "model", "gptq", DOWN)
    write_weights(folder, {**q.stored(folder), f"{DOWN}.bias": np.zeros(64, np.float16)})
    open_checkpoint(resolve(str(folder)).path)
    assert "1 biases of zeros" in caplog.text


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("gptq in activation order", "lie on no grid"),
        ("compressed int8", "activations; here they are computed in float"),
        ("int8", "activations; here they are computed in float"),
    ],
)
def test_what_is_not_as_in_the_original_is_said(
    tmp_path: Path, kind: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    resolve(str(of_kind(tmp_path / "model", kind, DOWN)))
    assert said in caplog.text


GRIDS: dict[str, Grid] = {
    "Q4_0": gguf.FOUR_BITS,
    "Q4_1": gguf.FOUR_BITS_UP,
    "Q5_0": gguf.FIVE_BITS,
    "Q8_0": gguf.EIGHT_BITS,
    "q4f16_1": mlc.FOUR_BITS,
    "q4": BLOCKS["q4-asymmetric"].grid(FLOAT16),
    "q4 symmetric": BLOCKS["q4"].grid(FLOAT16),
    "8-bit blocks": BLOCKS["q8"].grid(FLOAT16),
    "nf4": NF4,
}
GPTQ_128 = ({**GPTQ, "group_size": 128}, q.gptq(4, 128, symmetric=True, version=1))
AWQ_128 = ({"quant_method": "awq", "bits": 4, "group_size": 128}, q.awq(128))
W8 = (
    q.groups(**INT8, symmetric=True, format="pack-quantized"),
    q.compressed(8, 0, symmetric=True, words=True),
)
ALL_BUT_NF4 = set(GRIDS) - {"nf4"}
FIVE_BITS_AND_MORE = {"Q5_0", "Q8_0", "q4", "8-bit blocks"}
# What docs/how-to/quantised-checkpoints.md says of each.
FITS: dict[str, tuple[tuple[Mapping[str, Any], q.Store], set[str]]] = {
    "gptq": (KINDS["gptq"][:2], ALL_BUT_NF4),
    "gptq in groups of 128": (GPTQ_128, ALL_BUT_NF4),
    "gptq with zero points": (KINDS["gptq with zero points"][:2], FIVE_BITS_AND_MORE),
    "gptq of 8 bits": (KINDS["gptq of 8 bits"][:2], {"Q8_0", "8-bit blocks"}),
    "gptq in activation order": (KINDS["gptq in activation order"][:2], set()),
    "awq in groups of 128": (AWQ_128, FIVE_BITS_AND_MORE),
    "compressed 4 bits": (KINDS["compressed 4 bits"][:2], ALL_BUT_NF4),
    "compressed 4 bits with zero points": (
        KINDS["compressed 4 bits with zero points"][:2], FIVE_BITS_AND_MORE | {"Q4_1"},
    ),
    "compressed 8 bits": (W8, {"Q8_0", "8-bit blocks"}),
    "compressed 8 bits with zero points": (KINDS["compressed 8 bits"][:2], set()),
    "compressed float8": (KINDS["compressed float8"][:2], set()),
    "nf4": (KINDS["nf4 twice"][:2], {"nf4"}),
    "fp4": (KINDS["fp4"][:2], set()),
    "int8": (KINDS["int8"][:2], set()),
}  # fmt: skip


@pytest.mark.parametrize("kind", FITS)
def test_the_grids_on_which_all_blocks_lie(tmp_path: Path, kind: str) -> None:
    """With the scales that they have; groups of 128 are four blocks of one scale."""
    (settings, store), expected = FITS[kind]
    folder = q.make_quantised(
        tmp_path / "model", settings, store, only=[DOWN], num_hidden_layers=1, intermediate_size=256
    )
    found = values(folder, f"{DOWN}.weight")
    assert {name for name, grid in GRIDS.items() if find_lattice(found, grid).on_grid.all()} == (
        expected
    )


@pytest.mark.parametrize(
    ("kind", "form", "variant"),
    [
        ("gptq", "gguf", "q4_0"),
        ("gptq", "mlc", "q4f16_1"),
        ("gptq", "onnx", "q4"),
        ("awq", "onnx", "q4"),
        ("nf4 twice", "onnx", "bnb4"),
    ],
)
def test_what_lies_on_a_grid_is_written_without_a_second_rounding(
    tmp_path: Path, kind: str, form: str, variant: str
) -> None:
    folder = of_kind(tmp_path / "model", kind)
    artifact, _ = export(form, folder, tmp_path / "out", "-d", variant)
    weights = load_file(resolve(str(folder)).path / "model.safetensors")
    quantised = [name for name in weights if name.endswith("_proj.weight")]
    found = dequantise(artifact)
    assert len(quantised) == 7
    for name in quantised:
        # MLC multiplies in float16: the codes are exact, the product is rounded when it runs.
        expected = weights[name].astype(np.float16) if form == "mlc" else weights[name]
        np.testing.assert_array_equal(found[name], expected)
