"""A quantised checkpoint that cannot be read says so in one line that names file and tensor."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeproof.cli import main
from edgeproof.errors import InputError
from export.sources import resolve
from export.sources.quantised.conversion import plan_conversion
from tests import quantised as q
from tests.fuzzing import VALUES
from tests.test_quantised_readers import KINDS
from tests.tiny import change_json, make_checkpoint, write_weights

AT = "model.layers.0.self_attn.k_proj"  # [32, 64]: two groups of 32
Change = Callable[[Path], object]


def configured(**changes: Any) -> Change:
    """Other settings of `quantization_config`."""

    def change(folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text())["quantization_config"]
        change_json(folder / "config.json", quantization_config={**settings, **changes})

    return change


def grouped(**changes: Any) -> Change:
    """Other settings of the weights of compressed-tensors' group."""

    def change(folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text())["quantization_config"]
        settings["config_groups"]["group_0"]["weights"].update(changes)
        change_json(folder / "config.json", quantization_config=settings)

    return change


def put(end: str, make: Callable[[np.ndarray], np.ndarray] | None) -> Change:
    """Another tensor in place of the projection's; None takes it away."""

    def change(folder: Path) -> None:
        found = q.stored(folder)
        values = found.pop(f"{AT}.{end}")
        if make is not None:
            found[f"{AT}.{end}"] = np.ascontiguousarray(make(values.copy()))
        write_weights(folder, found)

    return change


def spoilt(value: Any, *at: int) -> Callable[[np.ndarray], np.ndarray]:
    def make(values: np.ndarray) -> np.ndarray:
        values[at] = value
        return values

    return make


def cut(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 7)


NAN = spoilt(np.nan, 1, 3)
SCALES_NAN = rf"tensor {AT}\.\S+ has a NaN or infinite value at \[1, 3\]"
# Kind → what is done to it, and the end of the line that is said.
REFUSED: dict[str, tuple[str, Change, str]] = {
    "3 bits": ("gptq", configured(bits=3), "GPTQ of 3 bits is not read"),
    "marlin": ("gptq", configured(checkpoint_format="marlin"), "format 'marlin' is not read"),
    "old marlin": ("gptq", configured(is_marlin_format=True), "format 'marlin' is not read"),
    "no bits": ("gptq", configured(bits=None), "bits must be a whole number"),
    "group size": ("gptq", configured(group_size=0), "group_size must be positive or -1"),
    "other group size": (
        "gptq", configured(group_size=16), rf"{AT}.scales has shape \[2, 32\], expected \[4, 32\]",
    ),
    "no scales": ("gptq", put("scales", None), f"is quantised, but {AT}.scales is missing"),
    "no zeros": ("gptq", put("qzeros", None), f"is quantised, but {AT}.qzeros is missing"),
    "no codes": ("gptq", put("qweight", None), f"{AT}.weight is missing, as floats and as GPTQ"),
    "short codes": ("gptq", put("qweight", lambda v: v[:-1]), r"qweight has shape \[7, 32\]"),
    "float codes": (
        "gptq", put("qweight", lambda v: v.astype(np.float32)), "qweight has dtype float32",
    ),
    "order beyond": ("gptq", put("g_idx", spoilt(2, 5)), "g_idx names group 2 for input 5"),
    "order below": ("gptq", put("g_idx", spoilt(-1, 5)), "g_idx names group -1 for input 5"),
    "no order": (
        "gptq in activation order", put("g_idx", None), f"is quantised, but {AT}.g_idx is missing",
    ),
    "NaN": ("gptq", put("scales", NAN), SCALES_NAN),
    "truncated": ("gptq", cut, "truncated: tensor"),
    "gemv": ("awq", configured(version="gemv"), "'gemv' is not read, only 4 bits in 'gemm'"),
    "awq NaN": ("awq", put("scales", NAN), SCALES_NAN),
    "awq without zeros": ("awq", put("qzeros", None), f"{AT}.qzeros is missing"),
    "sparse": (
        "compressed 4 bits", configured(sparsity_config={"format": "sparse-24-bitmask"}),
        "sparse weights",
    ),
    "nvfp4": ("compressed 4 bits", configured(format="nvfp4-pack-quantized"), "is not read, only"),
    "transforms": (
        "compressed 4 bits", configured(transform_config={"config_groups": {"a": {}}}),
        "computes more than its weights say",
    ),
    "float4": ("compressed 4 bits", grouped(type="float"), "weights of type float, 4 bits"),
    "groups of 0": ("compressed 4 bits", grouped(group_size=0), "strategy group have group_size 0"),
    "asymmetric without zeros": (
        "compressed 4 bits", grouped(symmetric=False), f"{AT}.weight_zero_point is missing",
    ),
    "other shape": (
        "compressed 4 bits", put("weight_shape", spoilt(65, 1)), r"weight_shape says \[32, 65\]",
    ),
    "8 bits of 4": ("compressed 4 bits", grouped(num_bits=8), "into which no group"),
    "compressed NaN": (
        "compressed 4 bits", put("weight_scale", spoilt(np.nan, 1, 1)), r"value at \[1, 1\]",
    ),
    "short zeros": (
        "compressed 4 bits with zero points", put("weight_zero_point", lambda v: v[1:]),
        r"weight_zero_point has shape \[3, 2\], expected \[4, 2\]",
    ),
    "ints as floats": ("compressed int8", grouped(type="float"), "stored as int8, as no group"),
    "not compressed": (
        "compressed float8", put("weight", lambda v: v.astype(np.float32)), "save_compressed=True",
    ),
    "float8 NaN": (
        "float8 in blocks", put("weight", spoilt(np.nan, 4, 9)),
        rf"{AT}.weight gives a NaN or infinite value at \[4, 9\]",
    ),
    "no float8 scales": (
        "float8 in blocks", put("weight_scale_inv", None), f"{AT}.weight_scale_inv is missing",
    ),
    "block size": (
        "float8 in blocks", configured(weight_block_size=[0, 1]), "must be two whole numbers",
    ),
    "other blocks": (
        "float8 in blocks", configured(weight_block_size=[16, 16]), "weight_scale_inv has shape",
    ),
    "no state": (
        "nf4", put("weight.quant_state.bitsandbytes__nf4", None), "bitsandbytes__nf4 is missing",
    ),
    "damaged state": (
        "nf4", put("weight.quant_state.bitsandbytes__nf4", lambda v: v[:-1]),
        "is not the JSON that bitsandbytes stores",
    ),
    "other levels": ("nf4", put("weight.quant_map", spoilt(0.5, 3)), "not the levels of nf4"),
    "short nf4": ("nf4", put("weight", lambda v: v[:-1]), "has 1023 bytes, 1024 hold"),
    "short maxima": ("nf4", put("weight.absmax", lambda v: v[:-1]), "absmax has shape"),
    "no nested maxima": ("nf4 twice", put("weight.nested_absmax", None), "absmax is missing"),
    "no SCB": ("int8", put("SCB", None), f"{AT}.SCB is missing"),
    "column order": ("int8", put("weight_format", lambda v: v + 1), "only weights in rows"),
    "huge": ("int8", put("SCB", spoilt(3e38, 3)), r"gives a NaN or infinite value at \[3, "),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Mapping[str, bytes]]:
    """The files of a kind's checkpoint by name, made once."""
    made: dict[str, Mapping[str, bytes]] = {}

    def files(kind: str) -> Mapping[str, bytes]:
        if kind not in made:
            settings, store, _ = KINDS[kind]
            folder = q.make_quantised(
                tmp_path_factory.mktemp("whole"), settings, store, only=[AT], num_hidden_layers=1
            )
            made[kind] = {path.name: path.read_bytes() for path in folder.iterdir()}
        return made[kind]

    return files


Whole = Callable[[str], Mapping[str, bytes]]


def put_down(files: Mapping[str, bytes], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_names_the_file_and_the_tensor(
    tmp_path: Path, whole: Whole, case: str
) -> None:
    kind, change, message = REFUSED[case]
    put_down(whole(kind), tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(InputError, match=message) as caught:
        resolve(str(tmp_path / "model"))
    assert str(tmp_path / "model") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("method", "fix"),
    [
        ("aqlm", "export the model that they were made from"),
        ("quip", "export the model that they were made from"),
        ("auto-round", "auto_gptq or auto_awq"),
        ("mxfp4", "Mxfp4Config"),
        ("torchao", "dequantize"),
    ],
)
def test_other_methods_are_named_with_what_helps(tmp_path: Path, method: str, fix: str) -> None:
    folder = make_checkpoint(tmp_path / "model", num_hidden_layers=1)
    change_json(folder / "config.json", quantization_config={"quant_method": method})
    found = q.stored(folder)
    write_weights(folder, {**found, f"{AT}.codes": np.zeros((4, 4), np.uint8)})
    command = ["gguf", "-m", str(folder), "-d", "f16", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert f"quantised (quantization_config: {method}), which is not read" in said
    assert fix in said


def test_a_type_that_nothing_reads_is_named_with_the_method(tmp_path: Path, whole: Whole) -> None:
    put_down(whole("gptq"), tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"I32"', b'"U32"'))
    with pytest.raises(InputError, match=r"quantization_config: gptq.*has dtype U32"):
        resolve(str(tmp_path / "model"))


@pytest.mark.parametrize("kind", ["gptq", "compressed 4 bits", "nf4 twice", "float8 in blocks"])
def test_whatever_the_settings_say_the_outcome_is_a_checkpoint_or_one_line(
    tmp_path: Path, whole: Whole, kind: str
) -> None:
    put_down(whole(kind), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    original, rng = json.loads(path.read_text()), random.Random(3)
    for _ in range(60):
        raw = json.loads(json.dumps(original))
        place: Any = raw["quantization_config"]
        while True:
            key = rng.choice([*place] if isinstance(place, dict) else range(len(place)))
            deeper = isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8
            if not deeper:
                break
            place = place[key]
        place[key] = rng.choice(VALUES)
        path.write_text(json.dumps(raw))
        try:
            conversion = plan_conversion(tmp_path / "model")
            if conversion:
                for tensor in conversion.planned:
                    assert sum(block.size for block in conversion.blocks(tensor.name)) > 0
        except InputError as error:
            assert "\n" not in str(error)
