"""--graph portable: standard operators alone; tests/test_onnx_logits.py checks what it computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgeproof.errors import InputError
from export.onnx import FORMAT
from runtimes.formats import dequantise
from runtimes.registry import open_reference, open_runtime
from tests.exported import export_tiny
from tests.test_onnx_artifact import check_graph
from tests.tiny import FAMILIES, VOCAB, make_checkpoint, write_weights
from tests.tolerance import OTHER_RUNTIME, ROUNDED, relative_error

pytestmark = pytest.mark.numbers

IDS = np.random.default_rng(0).integers(0, VOCAB, 30).tolist()
# Recipes whose storage standard operators compute with.
RECIPES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp16": {"residual_scale": 0.25},
    "int8": {"embedding": "fp16"},
    "uint8": {"embedding": "fp32"},
    "q8": {"embedding": "fp16"},
    "q4": {"embedding": "fp16", "symmetric": True},
    "q4f16": {},
}


@pytest.mark.parametrize("dtype", RECIPES)
@pytest.mark.parametrize("family", ["biases", "qwen3"])
def test_the_file_has_standard_operators_only(tmp_path: Path, family: str, dtype: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **FAMILIES[family])
    artifact = export_tiny(checkpoint, "onnx", dtype, tmp_path, graph="portable", **RECIPES[dtype])
    graphs = list(artifact.path.rglob("*.onnx"))
    assert len(graphs) == 2
    for path in graphs:
        model = onnx.load(path, load_external_data=False)
        assert [(item.domain, item.version) for item in model.opset_import] == [("", 23)]
        assert {node.domain for node in model.graph.node} == {""}
        check_graph(path)


# Rounded activations: of int8 and uint8 by the file itself, of q4f16 by ONNX Runtime.
TOLERANCES = {
    **dict.fromkeys(("fp32", "q8", "q4"), OTHER_RUNTIME),
    **dict.fromkeys(("fp16", "q4f16"), ROUNDED["float16"]),
    **dict.fromkeys(("int8", "uint8"), ROUNDED["int8"]),
}


@pytest.mark.parametrize("dtype", RECIPES)
def test_the_standards_own_evaluator_computes_what_pytorch_does(tmp_path: Path, dtype: str) -> None:
    sizes = {"hidden_size": 68, "head_dim": 24, "intermediate_size": 75}  # parts of blocks, odd
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **sizes)
    artifact = export_tiny(checkpoint, "onnx", dtype, tmp_path, graph="portable", **RECIPES[dtype])
    rounded = shutil.copytree(checkpoint, tmp_path / "rounded")
    write_weights(rounded, dequantise(artifact))
    path = next(artifact.path.glob("*.onnx"))
    evaluator = ReferenceEvaluator(str(path))
    cache = np.dtype(artifact.manifest.variant.facts.activations)
    ids, padding, prompt = np.array([IDS, IDS[::-1]]), (0, 7), len(IDS) - 1
    mask = np.ones_like(ids)
    mask[1, : padding[1]] = 0
    past = [name for name in evaluator.input_names if name.startswith("past")]
    feeds = {"input_ids": ids[:, :prompt], "attention_mask": mask[:, :prompt]}
    feeds |= {name: np.zeros((2, 2, 0, 24), cache) for name in past}
    first, *present = evaluator.run(None, feeds)
    feeds = {"input_ids": ids[:, prompt:], "attention_mask": mask}
    feeds |= dict(zip(past, present, strict=True))
    found = np.concatenate([first, evaluator.run(None, feeds)[0]], axis=1)
    reference = open_reference(rounded, 1)
    for row, count in enumerate(padding):
        expected = reference.logits(ids[row, count:].tolist())
        assert relative_error(found[row, count:], expected) < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", RECIPES)
def test_it_stores_and_computes_what_the_fused_graph_does(tmp_path: Path, dtype: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    fused, portable = (
        export_tiny(checkpoint, "onnx", dtype, tmp_path, graph=graph, **RECIPES[dtype])
        for graph in ("fused", "portable")
    )
    stored = dequantise(portable)
    assert stored.keys() == dequantise(fused).keys()
    for name, values in dequantise(fused).items():
        np.testing.assert_array_equal(stored[name], values, name)
    expected, found = (open_runtime(item, 1).logits(IDS) for item in (fused, portable))
    # With q4f16 the fused graph rounds activations to 8 bits.
    assert relative_error(found, expected) < (0.05 if dtype == "q4f16" else ROUNDED["float16"])


def test_it_takes_head_sizes_that_group_query_attention_refuses(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", head_dim=24)
    with pytest.raises(InputError, match="--graph portable"):
        export_tiny(checkpoint, "onnx", "fp32", tmp_path)
    artifact = export_tiny(checkpoint, "onnx", "fp32", tmp_path, graph="portable")
    expected = open_reference(checkpoint, 1).logits(IDS)
    assert relative_error(open_runtime(artifact, 1).logits(IDS), expected) < OTHER_RUNTIME


def test_it_is_in_name_and_recipe_and_genai_copies_the_cache(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    for graph, folder in (("fused", "fp16"), ("portable", "fp16-portable")):
        artifact = export_tiny(checkpoint, "onnx", "q016", tmp_path, graph=graph)
        assert artifact.path.name == folder
        assert artifact.manifest.variant.recipe["graph"] == graph
        assert (artifact.path / "onnx" / "model_fp16.onnx").is_file()
        config = json.loads((artifact.path / "genai_config.json").read_text())
        assert config["search"]["past_present_share_buffer"] == (graph == "fused")


@pytest.mark.parametrize(
    ("dtype", "fix"),
    [("q8", "--embedding fp16"), ("q4", "--embedding fp16"), ("bnb4", "q4f16")],
)
def test_storages_without_a_standard_operator_are_refused(dtype: str, fix: str) -> None:
    with pytest.raises(InputError, match=rf"^--graph portable: .*{dtype}.*{fix}"):
        FORMAT.variant(dtype, graph="portable")
