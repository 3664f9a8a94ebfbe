"""A rounding method that is defined wholly in here goes through every format by its name alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.errors import InputError
from export.formats import load_format
from export.gguf import storage as gguf
from export.mlc import schemes as mlc
from export.onnx import bnb4, dynamic
from export.onnx.blocks import BLOCKS
from export.plan.plan import load_plan
from export.rounding import BlockAxis, Evidence, Grid, Kind, Need, Rounded
from export.rounding.cast import FLOAT16, FLOAT32
from export.rounding.method import lanes
from export.rounding.registry import DEFAULT, METHODS, NEAREST, method_of
from runtimes.formats import dequantise
from runtimes.imatrix import matrix
from tests.exported import export_tiny
from tests.tiny import make_checkpoint

pytestmark = pytest.mark.numbers


class Toward0:
    """Truncation: every stored value is at most as large as the weight, a little for rounding."""

    needs = Need.NOTHING

    def round(self, rows: np.ndarray, grid: Grid, evidence: Evidence) -> Rounded:
        """Symmetric steps up to the largest magnitude, but on a grid of minima."""
        values = lanes(rows, grid)
        if grid.kind is Kind.MINIMUM:
            minima = values.min(axis=0).astype(grid.scale_dtype)
            spans = values.max(axis=0) - minima
            scales = (spans / grid.highest).astype(grid.scale_dtype)
            return Rounded(self._codes((values - minima) / scales, 0, grid), scales, minima)
        peaks = np.abs(values).max(axis=0)
        if grid.kind is Kind.CODEBOOK:
            levels, scales = np.array(grid.levels), peaks.astype(grid.scale_dtype)
            below = np.abs(levels[:, None, None]) <= np.abs(values / scales)
            allowed = below & (levels[:, None, None] * values >= 0)
            codes = np.where(allowed, np.abs(levels)[:, None, None], -1).argmax(axis=0)
            return Rounded(codes.astype(np.uint8), scales)
        middle = (grid.lowest + grid.highest + 1) // 2
        zero = middle if grid.kind is Kind.ZERO_POINT else grid.zero
        scales = (peaks / min(grid.highest - zero, zero - grid.lowest)).astype(grid.scale_dtype)
        codes = self._codes(values / scales, zero, grid)
        if grid.kind is Kind.ZERO_POINT:
            return Rounded(codes, scales, np.full(len(scales), zero, np.uint8))
        return Rounded(codes, scales)

    def _codes(self, steps: np.ndarray, zero: int, grid: Grid) -> np.ndarray:
        codes = np.trunc(steps) + zero
        return np.clip(codes, grid.lowest, grid.highest).astype(grid.code_dtype)


class Watching(Toward0):
    """Remembers the importance that it was given of each tensor."""

    needs = Need.IMPORTANCE

    def __init__(self) -> None:
        self.seen: dict[str, np.ndarray | None] = {}

    def round(self, rows: np.ndarray, grid: Grid, evidence: Evidence) -> Rounded:
        """As the parent."""
        self.seen[evidence.name] = evidence.importance
        return super().round(rows, grid, evidence)


@pytest.fixture(autouse=True)
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    """Both methods in the registry, for one test."""
    method = Watching()
    monkeypatch.setitem(METHODS, "toy", Toward0())
    monkeypatch.setitem(METHODS, "watching", method)
    return method


def values(rows: np.ndarray, grid: Grid) -> np.ndarray:
    """What the toy makes of a matrix [out, in], by the grid's own formula: float32 [out, in]."""
    rounded = Toward0().round(rows, grid, Evidence("w"))
    codes, scales = rounded.codes.astype(np.float32), rounded.scales.astype(np.float32)
    result = {
        Kind.CENTRED: lambda: codes * scales,
        Kind.SIGNED: lambda: (codes - grid.zero) * scales,
        Kind.ZERO_POINT: lambda: (codes - rounded.offsets) * scales,
        Kind.MINIMUM: lambda: codes * scales + rounded.offsets.astype(np.float32),
        Kind.CODEBOOK: lambda: np.array(grid.levels, np.float32)[rounded.codes] * scales,
    }[grid.kind]()
    lines = 1 if grid.axis is BlockAxis.FLAT else len(rows)
    return result.T.reshape(lines, -1)[:, : rows.size // lines].reshape(rows.shape)


Through = Callable[[np.ndarray], np.ndarray]


def on(grid: Grid, dtype: type = np.float32) -> Through:
    """Through the toy; what a runtime computes with is rounded to its dtype."""
    return lambda rows: values(rows.astype(dtype), grid).astype(dtype).astype(np.float32)


Q8 = on(BLOCKS["q8"].grid(FLOAT32))
MLC4, MLC3 = on(mlc.FOUR_BITS, np.float16), on(mlc.THREE_BITS, np.float16)
# (format, dtype, how linear layers come back, how the embedding does)
CASES: list[tuple[str, str, Through, Through]] = [
    ("gguf", "q4_0", on(gguf.FOUR_BITS), on(gguf.EIGHT_BITS)),
    ("gguf", "q5_1", on(gguf.FIVE_BITS_UP), on(gguf.EIGHT_BITS)),
    ("onnx", "q4", on(BLOCKS["q4-asymmetric"].grid(FLOAT32)), Q8),
    ("onnx", "q4f16", on(BLOCKS["q4-asymmetric"].grid(FLOAT16)), lambda rows: rows),
    ("onnx", "int8", on(dynamic.SIGNED.grid), Q8),
    ("onnx", "uint8", on(dynamic.UNSIGNED.grid), Q8),
    ("onnx", "bnb4", on(bnb4.GRID), Q8),
    ("mlc", "q4f16_1", MLC4, MLC4),
    ("mlc", "q3f16_0", MLC3, MLC3),
]
FORMATS = [("gguf", "q4_0"), ("onnx", "q4"), ("mlc", "q4f16_1")]
IDS = [name for name, _ in FORMATS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose weights float16 holds exactly."""
    return make_checkpoint(tmp_path_factory.mktemp("toy") / "checkpoint", dtype="F16")


@pytest.mark.parametrize(("form", "dtype", "linear", "embedding"), CASES)
def test_readers_give_back_what_the_method_says(
    folder: Path, tmp_path: Path, form: str, dtype: str, linear: Through, embedding: Through
) -> None:
    found = dequantise(export_tiny(folder, form, dtype, tmp_path, rounding="toy"))
    usual = dequantise(export_tiny(folder, form, dtype, tmp_path))
    weights = load_file(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        wide = weight.astype(np.float32)
        through = embedding if "embed" in name else linear
        expected = wide if weight.ndim == 1 else through(wide)
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
    name = "model.layers.1.mlp.down_proj.weight"
    assert not np.array_equal(found[name], usual[name])


@pytest.mark.parametrize(("form", "dtype"), [("onnx", "q4"), ("onnx", "bnb4"), ("mlc", "q4f16_1")])
def test_blocks_that_rows_do_not_fill_come_back_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, dtype: str
) -> None:
    """Read block of rows by block of rows, none of which ends with a block of NF4."""
    shape = {"hidden_size": 72, "intermediate_size": 100, "head_dim": 16}
    folder = make_checkpoint(tmp_path / "checkpoint", dtype="F16", **shape)
    whole = export_tiny(folder, form, dtype, tmp_path / "whole", rounding="toy")
    linear = next(case[2] for case in CASES if case[:2] == (form, dtype))
    for name in ("mlp.down_proj", "self_attn.o_proj"):
        full = f"model.layers.1.{name}.weight"
        weight = load_file(folder / "model.safetensors")[full].astype(np.float32)
        np.testing.assert_array_equal(dequantise(whole)[full], linear(weight))
    monkeypatch.setattr("export.checkpoint.checkpoint.BLOCK_ELEMENTS", 700)
    monkeypatch.setattr("export.onnx.bnb4.GROUP_VALUES", 300)
    monkeypatch.setattr("export.mlc.exporter.CACHE_ELEMENTS", 300)
    pieces = export_tiny(folder, form, dtype, tmp_path / "pieces", rounding="toy")
    assert pieces.manifest.outputs == whole.manifest.outputs


def run(form: str, *arguments: str | Path) -> tuple[int, str]:
    """The format's own command."""
    from export.command import format_command

    command = format_command(load_format(form))
    result = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)
    return result.exit_code, result.output


@pytest.mark.parametrize(("form", "dtype"), FORMATS, ids=IDS)
def test_the_method_is_in_the_artifacts_name_and_manifest(
    folder: Path, tmp_path: Path, form: str, dtype: str
) -> None:
    code, output = run(form, "-m", folder, "-o", tmp_path, "-d", dtype, "--rounding", "toy")
    assert code == 0, output
    (path,) = (item.parent for item in tmp_path.rglob("edgeproof.json"))
    variant = open_artifact(path).manifest.variant
    assert variant.name == f"{dtype}-toy"
    assert variant.recipe["rounding"] == {"method": "toy"}
    assert f"{dtype}-toy" in path.name
    if form == "gguf":
        (file,) = path.glob("*.gguf")
        assert file.stem.endswith("-Q4_0-toy")


@pytest.mark.parametrize(("form", "dtype"), FORMATS, ids=IDS)
def test_the_default_by_name_is_the_default(
    folder: Path, tmp_path: Path, form: str, dtype: str
) -> None:
    code, output = run(form, "-m", folder, "-o", tmp_path, "-d", dtype)
    assert code == 0, output
    named = ("-m", folder, "-o", tmp_path, "-d", dtype, "--rounding", DEFAULT)
    code, output = run(form, *named)
    assert code == 0
    assert "unchanged, reused" in output


def test_other_options_come_before_it_in_a_name() -> None:
    for form, dtype, options, name in (
        ("gguf", "q4_0", {"pure": True}, "q4_0-pure-toy"),
        ("onnx", "q4f16", {"residual_scale": 0.5, "symmetric": True}, None),
        ("mlc", "q4f32_1", {"raw_f32": True}, "q4f32_1-raw-f32-toy"),
    ):
        variant = load_format(form).variant(dtype, rounding="toy", **options)
        assert variant.name == (name or "q4f16-symmetric-residual0.5-toy")
        assert variant.aliases == ()


@pytest.mark.parametrize(("form", "dtype"), FORMATS, ids=IDS)
def test_a_plan_names_it(tmp_path: Path, form: str, dtype: str) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(f'[[variant]]\nformat = "{form}"\ndtype = "{dtype}"\nrounding = "toy"\n')
    _, variant = load_plan(plan).variants[0].resolve()
    assert variant.name == f"{dtype}-toy"


@pytest.mark.parametrize(
    ("form", "dtype", "reason"),
    [
        ("gguf", "f16", "f16 stores floats"),
        ("gguf", "q4_k_m", "llama.cpp itself rounds q4_k_m"),
        ("onnx", "fp32", "fp32 stores floats"),
        ("onnx", "fp16", "fp16 stores floats"),
        ("mlc", "q0f16", "q0f16 stores floats"),
    ],
)
@pytest.mark.parametrize("method", ["toy", NEAREST])
def test_where_nothing_is_rounded_here_it_is_refused(
    folder: Path, tmp_path: Path, form: str, dtype: str, reason: str, method: str
) -> None:
    code, output = run(form, "-m", folder, "-o", tmp_path, "-d", dtype, "--rounding", method)
    assert (code, output.count("\n")) == (2, 1)
    assert f"--rounding: {reason}" in output
    assert not list(tmp_path.iterdir())


def test_one_tensor_of_llama_cpps_types_is_enough_to_refuse_it() -> None:
    with pytest.raises(InputError, match=r"llama\.cpp itself rounds q6_k"):
        load_format("gguf").variant("q4_0", rounding="toy", output_tensor_type="q6_k")
    mixed = load_format("gguf").variant("f16", rounding="toy", tensor_type=["attn_v=q8_0"])
    assert mixed.name == "f16-attn_v-q8_0-toy"


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    for form, dtype in FORMATS:
        known = r"auto, nearest, lattice, .*toy"
        with pytest.raises(InputError, match=f"unknown method 'best'; choose from {known}"):
            load_format(form).variant(dtype, rounding="best")
    assert method_of(NEAREST).needs is Need.NOTHING


def write_matrix(path: Path) -> dict[str, np.ndarray]:
    """Random importance for the tiny model; means by llama.cpp's name."""
    rng = np.random.default_rng(0)
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    sums = {
        f"blk.{layer}.{name}.weight": (rng.lognormal(0, 3, 160 if "down" in name else 64), 1)
        for layer in range(3)
        for name in names
    }
    path.write_bytes(matrix.encode(sums, "text.txt", 1, 256))
    return {name: total.astype(np.float32) for name, (total, _) in sums.items()}


@pytest.mark.parametrize(("form", "dtype"), FORMATS, ids=IDS)
def test_a_method_that_needs_importance_gets_that_of_each_tensor(
    folder: Path, tmp_path: Path, watching: Watching, form: str, dtype: str
) -> None:
    importance = write_matrix(tmp_path / "i.gguf")
    options = {"rounding": "watching", "imatrix": tmp_path / "i.gguf"}
    artifact = export_tiny(folder, form, dtype, tmp_path, **options)
    assert artifact.manifest.variant.name == f"{dtype}-watching-imatrix"
    assert len(artifact.manifest.variant.recipe["rounding"]["imatrix"]) == 64
    assert "llama-cpp-python" not in artifact.manifest.tools
    assert watching.seen.pop("model.embed_tokens.weight") is None
    # The rows of q, k and v share their input: where they are fused, the first one's counts.
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.down_proj": "ffn_down",
    }
    fused = {"self_attn.q_proj": "self_attn.qkv_proj", "mlp.gate_proj": "mlp.gate_up_proj"}
    for layer in range(3):
        for name, theirs in names.items():
            module = name if f"model.layers.0.{name}.weight" in watching.seen else fused[name]
            seen = watching.seen[f"model.layers.{layer}.{module}.weight"]
            np.testing.assert_array_equal(seen, importance[f"blk.{layer}.{theirs}.weight"])


@pytest.mark.parametrize(("form", "dtype"), FORMATS, ids=IDS)
def test_method_and_matrix_must_fit_together(tmp_path: Path, form: str, dtype: str) -> None:
    file = tmp_path / "i.gguf"
    write_matrix(file)
    chosen = load_format(form)
    with pytest.raises(InputError, match="--rounding watching: it needs an importance matrix"):
        chosen.variant(dtype, rounding="watching")
    message = r"the method toy does not use it; leave it out, or choose --rounding .*watching"
    with pytest.raises(InputError, match=message):
        chosen.variant(dtype, rounding="toy", imatrix=file)
    with pytest.raises(InputError, match="not a GGUF file"):
        chosen.variant(dtype, rounding="watching", imatrix=Path(__file__))


@pytest.mark.parametrize(("form", "dtype"), FORMATS[1:], ids=IDS[1:])
def test_the_default_refuses_a_matrix_where_llama_cpp_does_not_round(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, dtype: str
) -> None:
    monkeypatch.delitem(METHODS, "watching")
    write_matrix(tmp_path / "i.gguf")
    model = ("-m", folder, "-o", tmp_path / "out", "-d", dtype)
    code, output = run(form, *model, "--imatrix", tmp_path / "i.gguf")
    assert code == 2
    assert output.startswith("error: --imatrix: the method auto does not use it; leave it out")
    assert output.count("\n") == 1


@pytest.mark.parametrize(("form", "dtype"), FORMATS, ids=IDS)
def test_a_matrix_of_another_model_is_refused(tmp_path: Path, form: str, dtype: str) -> None:
    write_matrix(tmp_path / "i.gguf")
    other = make_checkpoint(tmp_path / "other", num_hidden_layers=4)
    with pytest.raises(InputError, match=r"--imatrix: blk\.3\.\S+ is missing in the file"):
        options = {"rounding": "watching", "imatrix": tmp_path / "i.gguf"}
        export_tiny(other, form, dtype, tmp_path, **options)


def test_reading_an_artifact_needs_no_method(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Artifact = export_tiny(folder, "gguf", "q4_0", tmp_path, rounding="toy")
    monkeypatch.delitem(METHODS, "toy")
    assert len(dequantise(open_artifact(made.path))) == len(dequantise(made))
