"""--residual-scale: a model whose residual stream overflows float16 computes the same, and fits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from edgeproof.artifact import Facts
from edgeproof.errors import InputError
from export.onnx import FORMAT
from runtimes.formats import dequantise
from runtimes.parity.__main__ import main as parity_main
from runtimes.peaks import stream_peak
from runtimes.registry import open_reference, open_runtime
from tests.exported import export_tiny
from tests.tiny import VOCAB, make_checkpoint, write_weights
from tests.tolerance import FLOAT16_ON_GPU, ROUNDED, relative_error

pytestmark = pytest.mark.numbers

SCALE = 2.0**-4
IDS = np.random.default_rng(0).integers(0, VOCAB, 9).tolist()


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with one channel of the residual stream far above 65504."""
    folder = make_checkpoint(tmp_path_factory.mktemp("overflowing") / "checkpoint")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"][5] *= 40_000
    write_weights(folder, tensors)
    return folder


def test_the_plain_export_overflows_and_the_scaled_one_is_right(
    overflowing: Path, tmp_path: Path
) -> None:
    reference = open_reference(overflowing, 1)
    expected = reference.logits(IDS)
    peak = stream_peak(reference.peaks)
    assert peak > 2 * 65504
    assert peak * SCALE < 65504 / 2
    plain = export_tiny(overflowing, "onnx", "fp16", tmp_path)
    scaled = export_tiny(overflowing, "onnx", "fp16", tmp_path, residual_scale=SCALE)
    assert not np.isfinite(open_runtime(plain, 1).logits(IDS)).all()
    assert relative_error(open_runtime(scaled, 1).logits(IDS), expected) < ROUNDED["float16"]


def test_parity_tells_the_option_and_counts_with_it(overflowing: Path, tmp_path: Path) -> None:
    exports = [
        export_tiny(overflowing, "onnx", "fp16", tmp_path, **options).path
        for options in ({}, {"residual_scale": SCALE})
    ]
    command = [*map(str, exports), "--checkpoint", str(overflowing), "--positions", "100"]
    command += ["--budget", "fast", "--no-footprint"]
    result = CliRunner().invoke(parity_main, [*command, "--json", str(tmp_path / "parity.json")])
    assert result.exit_code == 1
    plain, scaled = json.loads((tmp_path / "parity.json").read_text())["artifacts"]
    assert plain["verdict"] == "FAIL"
    assert any("--residual-scale" in note for note in plain["notes"])
    headrooms = [
        item["measurement"]["estimates"]["fp16_headroom"]["value"] for item in (plain, scaled)
    ]
    assert headrooms[1] == pytest.approx(headrooms[0] / SCALE)
    assert scaled["measurement"]["failures"] == []


def test_the_same_in_true_float16_arithmetic(
    webgpu: None, overflowing: Path, tmp_path: Path
) -> None:
    expected = open_reference(overflowing, 1).logits(IDS)
    plain = export_tiny(overflowing, "onnx", "fp16", tmp_path)
    scaled = export_tiny(overflowing, "onnx", "fp16", tmp_path, residual_scale=SCALE)
    assert not np.isfinite(open_runtime(plain, 1, "webgpu").logits(IDS)).all()
    assert relative_error(open_runtime(scaled, 1, "webgpu").logits(IDS), expected) < FLOAT16_ON_GPU


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True},
        {"tie_word_embeddings": False},
        {"attention_bias": True, "mlp_bias": True},
    ],
)
def test_scaling_changes_no_function_and_no_weight(
    tmp_path: Path, changes: dict[str, bool]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **changes)
    plain = export_tiny(checkpoint, "onnx", "fp16", tmp_path)
    scaled = export_tiny(checkpoint, "onnx", "fp16", tmp_path, residual_scale=0.25)
    expected = open_reference(checkpoint, 1).logits(IDS)
    assert relative_error(open_runtime(scaled, 1).logits(IDS), expected) < ROUNDED["float16"]
    before, after = dequantise(plain), dequantise(scaled)
    assert before.keys() == after.keys()
    for name, values in before.items():
        # A weight below float16's normal numbers, 2⁻¹⁴, loses up to two of its last bits.
        np.testing.assert_allclose(after[name], values, rtol=0, atol=2.0**-23, err_msg=name)


def test_it_is_in_the_name_the_recipe_and_the_graph_never_silent(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(checkpoint, "onnx", "q016", tmp_path, residual_scale=0.25)
    assert artifact.path.name == "fp16-residual0.25"
    assert artifact.manifest.variant.recipe["residual_scale"] == 0.25
    assert artifact.manifest.variant.facts == Facts("float16", residual_scale=0.25)
    config = json.loads((artifact.path / "config.json").read_text())
    assert config["transformers.js_config"]["kv_cache_dtype"] == {"fp16": "float16"}
    graph = onnx.load(artifact.path / "onnx" / "model_fp16.onnx", load_external_data=False).graph
    assert any("residual_scale" in node.input for node in graph.node)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0, 0.0, -0.5, 2.0**-15, float("nan")])
def test_only_powers_of_two_below_one_are_taken(scale: float) -> None:
    with pytest.raises(InputError, match="power of two"):
        FORMAT.variant("fp16", residual_scale=scale)


def test_a_variant_without_float16_activations_refuses_it() -> None:
    with pytest.raises(InputError, match="fp32 has no float16 activations"):
        FORMAT.variant("fp32", residual_scale=0.25)
