"""Recovered checkpoints, and others that lie on a grid, are stored exactly in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.errors import InputError
from edgeproof.recovery import RECOVERY
from export.formats import load_format
from runtimes.formats import dequantise
from runtimes.gguf_file import read_file
from runtimes.parity.localise.contents import compare_contents
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.parity.localise.tensors import compare_tensors
from runtimes.registry import open_runtime
from runtimes.weights.fused import Heads, split
from tests.recovered import four_or_eight, make_recovered, mixed, save_record
from tests.tiny import PHI3, change_json, make_checkpoint, write_weights

pytestmark = pytest.mark.numbers


def run(form: str, folder: Path, out: Path, *arguments: str) -> tuple[int, str]:
    """The format's own command."""
    from export.command import format_command

    options = ["-m", str(folder), "-o", str(out), *arguments]
    result = CliRunner().invoke(format_command(load_format(form)), options, catch_exceptions=False)
    return result.exit_code, result.output


def export(form: str, folder: Path, out: Path, *arguments: str) -> tuple[Artifact, str]:
    """The only artifact that one command writes, and what it printed."""
    code, output = run(form, folder, out, *arguments)
    assert code == 0, output
    (path,) = (item.parent for item in out.rglob("edgeproof.json"))
    return open_artifact(path), output


def differences(artifact: Artifact, folder: Path) -> list[str]:
    """Tensors that the file gives back with another value, as this project's own reader has it."""
    found, heads = dequantise(artifact), Heads.of(json.loads((folder / "config.json").read_text()))
    weights = {
        part: rows
        for name, values in load_file(folder / "model.safetensors").items()
        for part, rows in split(name, values, heads)
    }
    assert found.keys() == weights.keys()
    return [name for name in weights if not np.array_equal(found[name], weights[name])]


Q4: Callable[[str], str] = lambda name: "q4"  # noqa: E731


@pytest.fixture(scope="module")
def q4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recovered(tmp_path_factory.mktemp("q4") / "checkpoint", Q4)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recovered(tmp_path_factory.mktemp("mixed") / "checkpoint", mixed)


def test_gguf_has_each_tensor_in_the_type_of_its_grid(mixture: Path, tmp_path: Path) -> None:
    artifact, _ = export("gguf", mixture, tmp_path, "-d", "auto")
    assert differences(artifact, mixture) == []
    variant = artifact.manifest.variant
    assert (variant.name, variant.precision.value) == ("recovered", "4-bit")
    assert variant.recipe["rounding"] == {"method": "lattice"}
    (file,) = artifact.path.glob("*.gguf")
    assert file.stem.endswith("-IQ4_NL-recovered")
    metadata, tensors = read_file(file)
    assert metadata["general.file_type"] == 25
    kinds = {tensor.name: tensor.type.name for tensor in tensors}
    assert kinds["token_embd.weight"] == "Q5_0"
    assert kinds["blk.0.attn_q.weight"] == "IQ4_NL"
    assert kinds["blk.0.attn_k.weight"] == "Q4_0"
    assert kinds["blk.2.ffn_down.weight"] == "Q8_0"
    assert kinds["blk.2.ffn_norm.weight"] == "F32"


def test_llama_cpp_gives_the_same_values(mixture: Path, tmp_path: Path) -> None:
    """gguf-py's reader and dequantisation, which share nothing with ours."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    artifact, _ = export("gguf", mixture, tmp_path, "-d", "auto", "--verify")
    (file,) = artifact.path.glob("*.gguf")
    theirs = {
        item.name: dequantize(item.data, item.tensor_type) for item in GGUFReader(file).tensors
    }
    weights = load_file(mixture / "model.safetensors")
    for name, ours in (
        ("token_embd", "model.embed_tokens"),
        ("blk.1.ffn_up", "model.layers.1.mlp.up_proj"),
        ("blk.1.ffn_down", "model.layers.1.mlp.down_proj"),
    ):
        np.testing.assert_array_equal(theirs[f"{name}.weight"], weights[f"{ours}.weight"])


def test_mlc_has_the_shared_grid(q4: Path, tmp_path: Path) -> None:
    """MLC multiplies in float16, so that products are rounded to it once."""
    artifact, _ = export("mlc", q4, tmp_path, "-d", "auto")
    assert artifact.manifest.variant.name == "q4f16_1-recovered"
    found, weights = dequantise(artifact), load_file(q4 / "model.safetensors")
    for name, values in weights.items():
        np.testing.assert_array_equal(found[name], values.astype(np.float16), err_msg=name)


def test_mlc_refuses_another_grid(mixture: Path, tmp_path: Path) -> None:
    code, output = run("mlc", mixture, tmp_path, "-d", "auto")
    assert code == 2
    assert output.splitlines()[-1].endswith(
        f"{RECOVERY}: model.embed_tokens.weight is q5, and q4f16_1 stores nothing but q4; recover"
        " the model with --format mlc or any"
    )


@pytest.mark.parametrize("dtype", ["q4", "q4f16"])
@pytest.mark.parametrize("grids", [Q4, four_or_eight, mixed], ids=["4", "4 and 8", "all"])
def test_onnx_has_the_bits_of_each_grid(
    tmp_path: Path, grids: Callable[[str], str], dtype: str
) -> None:
    folder = make_recovered(tmp_path / "checkpoint", grids)
    artifact, _ = export("onnx", folder, tmp_path / "out", "-d", dtype)
    assert differences(artifact, folder) == []
    assert artifact.manifest.variant.name == f"{dtype}-recovered"
    assert (artifact.path / "onnx" / f"model_{dtype}.onnx").is_file()
    types = set(artifact.manifest.weights["types"])
    floats = "float32" if dtype == "q4" else "float16"
    assert types == ({"q4", floats} if grids is Q4 else {"q4", "q8", floats})
    # WebGPU looks rows up where they lie, wasm by standard operators.
    assert artifact.manifest.variant.recipe["native"] == (dtype == "q4f16")


@pytest.mark.parametrize(("form", "dtype"), [("gguf", "auto"), ("mlc", "auto"), ("onnx", "q4")])
def test_fused_layers_are_stored_on_their_grid(tmp_path: Path, form: str, dtype: str) -> None:
    grids = Q4 if form == "mlc" else mixed
    folder = make_recovered(tmp_path / "checkpoint", grids, **PHI3)
    artifact, _ = export(form, folder, tmp_path / "out", "-d", dtype)
    if form == "mlc":  # which multiplies in float16
        weights = {
            k: v.astype(np.float16) for k, v in load_file(folder / "model.safetensors").items()
        }
        write_weights(folder, weights)
    assert differences(artifact, folder) == []


def test_gguf_refuses_several_grids_in_one_tensor(tmp_path: Path) -> None:
    folder = make_recovered(tmp_path / "checkpoint", Q4, **PHI3)
    grids = json.loads((folder / RECOVERY).read_text())["grids"]
    save_record(folder, {**grids, "model.layers.1.self_attn.k_proj.weight": "q5"})
    code, output = run("gguf", folder, tmp_path / "out", "-d", "auto")
    assert code == 2
    assert "layers.1.self_attn.k_proj.weight is q5" in output.splitlines()[-1]
    assert "GGUF stores them as one tensor, blk.1.attn_qkv.weight" in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("form", "dtype"), [("gguf", "auto"), ("mlc", "auto"), ("onnx", "q4-recovered")]
)
def test_other_checkpoints_are_refused_in_a_line(tmp_path: Path, form: str, dtype: str) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    code, output = run(form, folder, tmp_path / "out", "-d", dtype)
    assert code == 2
    assert "no recovery.json, so this is no recovered checkpoint" in output.splitlines()[-1]


def test_a_tensor_that_is_not_on_its_grid_is_named(tmp_path: Path) -> None:
    folder = make_recovered(tmp_path / "checkpoint", Q4)
    grids = json.loads((folder / RECOVERY).read_text())["grids"]
    save_record(folder, {**grids, "model.layers.1.mlp.up_proj.weight": "iq4_nl"})
    code, output = run("gguf", folder, tmp_path / "out", "-d", "auto")
    assert code == 2
    last = output.splitlines()[-1]
    assert "model.layers.1.mlp.up_proj.weight does not lie on the grid" in last


def test_a_record_of_other_tensors_is_refused(tmp_path: Path) -> None:
    folder = make_recovered(tmp_path / "checkpoint", Q4)
    save_record(folder, {"model.layers.9.mlp.up_proj.weight": "q4"})
    code, output = run("gguf", folder, tmp_path / "out", "-d", "auto")
    assert code == 2
    assert "has no matrix model.layers.9.mlp.up_proj.weight" in output


@pytest.mark.parametrize(
    ("form", "dtype", "options"),
    [
        ("gguf", "auto", {"pure": True}),
        ("gguf", "auto", {"tensor_type": ["attn_v=q8_0"]}),
        ("gguf", "auto", {"rounding": "nearest"}),
        ("mlc", "auto", {"rounding": "nearest"}),
        ("onnx", "q4-recovered", {"rounding": "nearest"}),
        ("onnx", "q4-recovered", {"embedding": "q8"}),
    ],
)
def test_options_that_would_change_the_types_are_refused(
    form: str, dtype: str, options: dict[str, object]
) -> None:
    with pytest.raises(InputError):
        load_format(form).variant(dtype, **options)


def test_the_record_is_part_of_what_an_export_depends_on(tmp_path: Path) -> None:
    folder = make_recovered(tmp_path / "checkpoint", Q4)
    artifact, _ = export("gguf", folder, tmp_path / "out", "-d", "auto")
    assert RECOVERY in {item.path for item in artifact.manifest.model.inputs}
    _, output = export("gguf", folder, tmp_path / "out", "-d", "auto")
    assert "unchanged, reused" in output
    change_json(folder / RECOVERY, method={"made": "otherwise"})
    _, output = export("gguf", folder, tmp_path / "out", "-d", "auto")
    assert "reused" not in output


# The default on any checkpoint that happens to lie on the grid: quantisation-aware releases.
CASES = [
    ("gguf", "q4_0", "q4", "q8"),
    ("gguf", "q5_0", "q5", "q8"),
    ("gguf", "q8_0", "q8", "q8"),
    ("gguf", "iq4_nl", "iq4_nl", "iq4_nl"),
    ("onnx", "q4", "q4", "q8"),
    ("onnx", "q8", "q8", "q8"),
    ("mlc", "q4f32_1", "q4", "q4"),
]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("form", "variant", "linear", "embedding"), CASES)
def test_the_default_stores_exactly_what_lies_on_the_grid(
    tmp_path: Path, form: str, variant: str, linear: str, embedding: str, dtype: str
) -> None:
    folder = make_recovered(
        tmp_path / "checkpoint",
        lambda name: embedding if "embed" in name else linear,
        dtype=dtype,
        record=False,
    )
    options = ["--raw-f32"] if variant == "q4f32_1" else []
    artifact, output = export(form, folder, tmp_path / "out", "-d", variant, *options)
    assert "all quantised tensors lie on their grid already and are stored exactly" in output
    found = artifact.manifest.variant.recipe["rounding"]
    assert found["method"] == "auto"
    assert found["on_grid"]["count"] == found["on_grid"]["of"]
    assert "llama-cpp-python" not in artifact.manifest.tools
    values, weights = dequantise(artifact), load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        stored = values[name].astype(weight.dtype)
        np.testing.assert_array_equal(stored, weight, err_msg=name)
    _, again = export(form, folder, tmp_path / "out", "-d", variant, *options)
    assert "unchanged, reused" in again


@pytest.mark.parametrize(
    ("form", "variant"), [("gguf", "q4_0"), ("onnx", "q4"), ("mlc", "q4f16_1")]
)
def test_tensors_off_the_grid_are_rounded_as_ever(tmp_path: Path, form: str, variant: str) -> None:
    def some(name: str) -> str | None:
        return "q4" if "o_proj" in name else None

    folder = make_recovered(tmp_path / "checkpoint", some, record=False)
    artifact, output = export(form, folder, tmp_path / "out", "-d", variant)
    plain, _ = export(form, folder, tmp_path / "plain", "-d", variant, "--rounding", "nearest")
    assert "3 of " in output
    found = artifact.manifest.variant.recipe["rounding"]["on_grid"]
    assert found["count"] == 3
    assert set(found["tensors"]) == {f"model.layers.{n}.self_attn.o_proj.weight" for n in range(3)}
    values, usual = dequantise(artifact), dequantise(plain)
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if name in found["tensors"]:
            # MLC multiplies in float16.
            expected = weight.astype(np.float16) if form == "mlc" else weight
            np.testing.assert_array_equal(values[name], expected, err_msg=name)
        else:
            np.testing.assert_array_equal(values[name], usual[name], err_msg=name)


@pytest.mark.parametrize(
    ("form", "variant"), [("gguf", "q4_0"), ("onnx", "q4"), ("mlc", "q4f16_1")]
)
def test_lattice_by_name_refuses_the_first_tensor_that_is_off(
    tmp_path: Path, form: str, variant: str
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    code, output = run(form, folder, tmp_path / "o", "-d", variant, "--rounding", "lattice")
    assert code == 2
    last = output.splitlines()[-1]
    assert ".weight does not lie on the grid" in last
    assert not list((tmp_path / "o").rglob("edgeproof.json"))


def test_lattice_by_name_has_the_folder_of_its_name(tmp_path: Path) -> None:
    folder = make_recovered(tmp_path / "checkpoint", Q4, record=False)
    artifact, _ = export("gguf", folder, tmp_path, "-d", "q4_0", "--pure", "--rounding", "lattice")
    assert artifact.path.name == "q4_0-pure-lattice"
    assert differences(artifact, folder) == []


@pytest.mark.parametrize(
    ("form", "dtype"), [("gguf", "auto"), ("mlc", "auto"), ("onnx", "q4"), ("onnx", "q4f16")]
)
def test_the_comparison_finds_nothing_wrong(tmp_path: Path, form: str, dtype: str) -> None:
    """Weights against the recovered checkpoint, and every key of every file."""
    grids = Q4 if form == "mlc" else mixed
    folder = make_recovered(tmp_path / "checkpoint", grids)
    artifact, _ = export(form, folder, tmp_path / "out", "-d", dtype)
    assert compare_metadata(artifact, folder) == ()
    assert compare_contents(artifact, folder) == ()
    weights = load_file(folder / "model.safetensors")
    if form == "mlc":
        weights = {name: values.astype(np.float16) for name, values in weights.items()}
    wide = {name: values.astype(np.float32) for name, values in weights.items()}
    precision = artifact.manifest.variant.precision
    found = compare_tensors(dequantise(artifact), wide, [], {}, precision, Heads(4, 2, 16))
    assert found == ((), ())  # not one value differs


@pytest.mark.parametrize("dtype", ["q4", "q4f16"])
def test_onnx_runtime_computes_what_is_multiplied_apart(tmp_path: Path, dtype: str) -> None:
    """Queries, keys and values have other bits here; the weights are those of the fp32 graph."""
    folder = make_recovered(tmp_path / "checkpoint", four_or_eight)
    ids = [1, 5, 7, 9, 11, 300]
    found = {}
    for name in (dtype, "fp32"):
        artifact, _ = export("onnx", folder, tmp_path / name, "-d", name)
        runtime = open_runtime(artifact, threads=1)
        found[name] = runtime.logits(ids)
        runtime.close()
    error = np.linalg.norm(found[dtype] - found["fp32"]) / np.linalg.norm(found["fp32"])
    # MatMulNBits rounds activations to 8 bits.
    assert error < 0.05
