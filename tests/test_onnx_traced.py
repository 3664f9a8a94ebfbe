from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from edgeproof.artifact import Artifact, Facts, open_artifact
from edgeproof.errors import InputError
from export.checkpoint import open_checkpoint, open_folder
from export.onnx.__main__ import main
from export.onnx.traced import TRACED, exporter
from export.onnx.traced.environment import REQUIREMENTS
from runtimes.parity.run import Conditions, Extent, ParityRun, Request, run_parity
from runtimes.parity.suite import Budget, built_in
from tests.tiny import make_checkpoint, write_tokenizer

EMBEDDING = "gpt_neox.embed_in.weight"


def foreign_checkpoint(folder: Path) -> Path:
    """A GPT-NeoX of this project's tiny tokenizer: an architecture that is not written directly."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=384, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
        initializer_range=0.3,  # logits as far apart as a trained model's
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def fake_trace(checkpoint: Path, out: Path, dtype: str) -> None:
    """What Optimum leaves, in small: the embedding outside, a shape inside."""
    tensor = load_file(checkpoint / "model.safetensors")[EMBEDDING]
    kind = {"fp32": np.float32, "fp16": np.float16}[dtype]
    weight = numpy_helper.from_array(tensor.astype(kind), EMBEDDING)
    (out / exporter.WEIGHTS).write_bytes(weight.raw_data)
    onnx.external_data_helper.set_external_data(weight, exporter.WEIGHTS, 0, len(weight.raw_data))
    weight.ClearField("raw_data")
    shape = numpy_helper.from_array(np.array([1, -1]), "shape")
    graph = helper.make_graph(
        [
            helper.make_node("Gather", [EMBEDDING, "input_ids"], ["rows"]),
            helper.make_node("Reshape", ["rows", "shape"], ["logits"]),
        ],
        "fake",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("logits", weight.data_type, [1, "m"])],
        [weight, shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (out / exporter.GRAPH).write_bytes(model.SerializeToString())


def export(checkpoint: Path, out: Path, *options: str) -> Any:
    arguments = ["-m", str(checkpoint), "-o", str(out), "--engine", "optimum", *options]
    return CliRunner().invoke(main, arguments)


def exported(checkpoint: Path, out: Path, dtype: str) -> Artifact:
    result = export(checkpoint, out, "-d", dtype)
    assert result.exit_code == 0, result.output
    return open_artifact(out / checkpoint.name / "onnx" / f"{dtype}-optimum")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    return foreign_checkpoint(tmp_path / "foreign")


@pytest.mark.parametrize(("dtype", "file"), [("fp32", "model.onnx"), ("fp16", "model_fp16.onnx")])
def test_a_traced_graph_lands_in_the_layout_of_ours(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, file: str
) -> None:
    monkeypatch.setattr(exporter, "trace", fake_trace)
    artifact = exported(foreign, tmp_path / "out", dtype)
    artifact.check()
    assert {item.path for item in artifact.manifest.outputs} == {
        file, f"onnx/{file}", f"onnx/{file}_data",
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    expected = load_file(foreign / "model.safetensors")[EMBEDDING]
    for graph in (artifact.path / file, artifact.path / "onnx" / file):
        onnx.checker.check_model(graph, full_check=True)
        stored = {item.name: item for item in onnx.load(graph).graph.initializer}
        found = numpy_helper.to_array(stored[EMBEDDING])
        np.testing.assert_array_equal(found, expected.astype(found.dtype))
    config = json.loads((artifact.path / "config.json").read_text())["transformers.js_config"]
    assert config["use_external_data_format"] == {file: 1}
    assert [*config["kv_cache_dtype"]] == [dtype]


def test_the_recipe_names_the_engine_and_every_version_that_it_ran_with(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "trace", fake_trace)
    manifest = exported(foreign, tmp_path, "fp32").manifest
    assert manifest.variant.recipe["engine"] == "optimum"
    assert manifest.variant.facts == Facts("float32", traced=True)
    for line in REQUIREMENTS.read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            assert manifest.tools[f"optimum environment: {name}"] == version
    again = export(foreign, tmp_path, "-d", "fp32")
    assert "unchanged, reused" in again.output


def test_a_value_that_overflows_is_refused_and_leaves_nothing(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(checkpoint: Path, out: Path, dtype: str) -> None:
        fake_trace(checkpoint, out, dtype)
        (out / exporter.WEIGHTS).write_bytes(np.full(384 * 64, np.inf, np.float16).tobytes())

    monkeypatch.setattr(exporter, "trace", overflow)
    result = export(foreign, tmp_path / "out", "-d", "fp16")
    assert result.exit_code == 2
    assert f"tensor {EMBEDDING} has a value that is not finite" in result.output
    assert not list((tmp_path / "out").rglob("*.onnx*"))


@pytest.mark.parametrize(
    ("returncode", "output", "message"),
    [
        (1, "Traceback …\nValueError: a custom or unsupported architecture\n", "ValueError: a cus"),
        (-9, "", "killed by signal 9"),
    ],
)
def test_what_optimum_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returncode: int, output: str, message: str
) -> None:
    monkeypatch.setattr(exporter, "optimum_bin", lambda: tmp_path)
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], returncode, output)
    )
    with pytest.raises(InputError, match=message) as caught:
        exporter.trace(tmp_path, tmp_path, "fp32")
    assert "\n" not in str(caught.value)


def test_any_architecture_opens_for_optimum_and_only_for_it(foreign: Path) -> None:
    assert open_folder(foreign).parameter_count == sum(
        value.size for value in load_file(foreign / "model.safetensors").values()
    )
    with pytest.raises(InputError, match="unknown architecture 'gpt_neox'"):
        open_checkpoint(foreign)


def test_both_readers_count_the_same_parameters(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    assert open_folder(folder).parameter_count == open_checkpoint(folder).parameter_count


def test_pickled_weights_are_refused_whoever_traces(foreign: Path, tmp_path: Path) -> None:
    (foreign / "model.safetensors").rename(foreign / "pytorch_model.bin")
    result = export(foreign, tmp_path / "out", "-d", "fp32")
    assert result.exit_code == 2
    assert "pickled weights are never loaded" in result.output


def test_optimum_has_no_other_dtypes(foreign: Path, tmp_path: Path) -> None:
    result = export(foreign, tmp_path / "out", "-d", "q4")
    assert result.exit_code == 2
    assert "no dtype 'q4'" in result.output
    assert {variant.name for variant in TRACED.variants} == {"fp32-optimum", "fp16-optimum"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "dtype"),
    # Optimum's fp16 graph of a GPT-NeoX mixes types, so that no runtime loads it: it is refused.
    [(foreign_checkpoint, "fp32"), (make_checkpoint, "fp32"), (make_checkpoint, "fp16")],
)
def test_the_parity_run_judges_what_optimum_traces(
    make: Callable[[Path], Path], dtype: str, tmp_path: Path
) -> None:
    checkpoint = make(tmp_path / "checkpoint")
    artifact = exported(checkpoint, tmp_path / "out", dtype)
    conditions = Conditions(built_in(Budget.DEFAULT), 2, {}, Extent(footprints=False))
    _, (entry,) = run_parity(ParityRun(checkpoint, [Request(artifact.path, False)], conditions))
    assert entry.judgement.verdict.value == "PASS", entry.judgement.reasons
    assert entry.measurement is not None
    assert entry.measurement.weights is None
    assert not entry.measurement.exact_weights
