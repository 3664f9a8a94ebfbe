"""Quantised checkpoints are read as the values that they state: a second formula, bit by bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.sources.quantised.conversion import plan_conversion
from export.sources.quantised.registry import READERS
from tests import quantised as q

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FLOAT = {"num_bits": 8, "type": "float", "format": "float-quantized"}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel"}

Kind = tuple[Mapping[str, Any], q.Store, q.Value]
KINDS: dict[str, Kind] = {
    "gptq": (GPTQ, q.gptq(4, 32, symmetric=True, version=1), q.gptq_value(4, 1)),
    "gptq of 8 bits": (
        {**GPTQ, "bits": 8, "group_size": -1},
        q.gptq(8, -1, symmetric=True, version=1), q.gptq_value(8, 1),
    ),
    "gptq with zero points": (
        {**GPTQ, "sym": False, "checkpoint_format": "gptq_v2"},
        q.gptq(4, 32, symmetric=False, version=2), q.gptq_value(4, 2),
    ),
    "gptq with zero points, version 1": (
        {**GPTQ, "sym": False, "checkpoint_format": "gptq"},
        q.gptq(4, 32, symmetric=False, version=1), q.gptq_value(4, 1),
    ),
    "gptq in activation order": (
        {**GPTQ, "desc_act": True},
        q.gptq(4, 32, symmetric=True, version=1, ordered=True), q.gptq_value(4, 1),
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"},
        q.awq(32), q.awq_value(32),
    ),
    "compressed 4 bits": (
        q.groups(**INT4, symmetric=True, format="pack-quantized"),
        q.compressed(4, 32, symmetric=True, words=True), q.compressed_value(4, 32),
    ),
    "compressed 4 bits with zero points": (
        q.groups(**INT4, symmetric=False, format="pack-quantized"),
        q.compressed(4, 32, symmetric=False, words=True), q.compressed_value(4, 32),
    ),
    "compressed 8 bits": (
        q.groups(**INT8, symmetric=False, format="pack-quantized"),
        q.compressed(8, 0, symmetric=False, words=True), q.compressed_value(8, 0),
    ),
    "compressed int8": (
        q.groups(**INT8, symmetric=False, format="int-quantized", inputs={"num_bits": 8}),
        q.compressed(8, 0, symmetric=False, words=False), q.compressed_value(8, 0),
    ),
    "compressed float8": (
        q.groups(**FLOAT, strategy="channel"),
        q.float8(None, "weight_scale", q.BF16), q.float8_value(None, "weight_scale"),
    ),
    "compressed float8 in blocks": (
        q.groups(**FLOAT, strategy="block", block_structure=[48, 64]),
        q.float8((48, 64), "weight_scale", q.BF16), q.float8_value((48, 64), "weight_scale"),
    ),
    "compressed float8 per tensor": (
        q.groups(**FLOAT, strategy="tensor"),
        q.per_tensor("weight_scale", (1,), q.BF16), q.float8_value(None, "weight_scale"),
    ),
    "nf4": (BNB, q.four_bits("nf4", double=False), q.four_bits_value("nf4")),
    "nf4 twice": (BNB, q.four_bits("nf4", double=True), q.four_bits_value("nf4")),
    "nf4 seen as bfloat16": (
        {**BNB, "bnb_4bit_quant_storage": "bfloat16"},
        q.four_bits("nf4", double=True, storage=q.BF16), q.four_bits_value("nf4"),
    ),
    "fp4": (
        {**BNB, "bnb_4bit_quant_type": "fp4"},
        q.four_bits("fp4", double=False, size=128), q.four_bits_value("fp4"),
    ),
    "int8": (
        {"quant_method": "bitsandbytes", "load_in_8bit": True}, q.eight_bits, q.eight_bits_value,
    ),
    "float8 in blocks": (
        {**FP8, "weight_block_size": [48, 64]},
        q.float8((48, 64), "weight_scale_inv"), q.float8_value((48, 64), "weight_scale_inv"),
    ),
    "float8 per tensor": (
        {**FP8, "weight_block_size": None},
        q.per_tensor("weight_scale_inv", (), np.float32), q.float8_value(None, "weight_scale_inv"),
    ),
    "float8 per row": (
        {"quant_method": "fbgemm_fp8"},
        q.float8(None, "weight_scale"), q.float8_value(None, "weight_scale"),
    ),
}  # fmt: skip
# One whose blocks of 64 cross rows, and one with fewer outputs than inputs.
LOOKED_AT = ("model.layers.0.mlp.down_proj", "model.layers.0.self_attn.k_proj")


def values(folder: Path, name: str) -> np.ndarray:
    conversion = plan_conversion(folder)
    assert conversion is not None
    return np.concatenate(list(conversion.blocks(name)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_value_is_what_the_format_says(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a matrix is read in several blocks."""
    monkeypatch.setattr("export.sources.quantised.conversion.BLOCK_ELEMENTS", 1600)
    settings, store, value = KINDS[kind]
    folder = q.make_quantised(
        tmp_path / "model", settings, store, only=LOOKED_AT, num_hidden_layers=1
    )
    found = q.stored(folder)
    for name in LOOKED_AT:
        got = values(folder, f"{name}.weight")
        assert got.dtype == np.float32
        expected = [
            [value(found, name, o, i) for i in range(got.shape[1])] for o in range(len(got))
        ]
        np.testing.assert_array_equal(got, np.array(expected, np.float64).astype(np.float32))


def test_every_reader_has_a_checkpoint_here() -> None:
    assert {settings["quant_method"] for settings, _, _ in KINDS.values()} == set(READERS)
