"""OpenVINO beside a format's usual runtime: which files it reads, and what it makes of them.

`tests/test_runtime_contract.py` holds both adapters to what every runtime promises.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.openvino import differences
from edgeproof.artifact import MANIFEST, Artifact, open_artifact
from edgeproof.errors import InputError
from runtimes.audit.run import audit
from runtimes.audit.subjects import found_in
from runtimes.formats import dequantise
from runtimes.located import Model
from runtimes.openvino.signal_stack import signal_stack
from runtimes.parity import tokenizer
from runtimes.parity.advice import advise
from runtimes.parity.execution import execution
from runtimes.parity.run import Extent
from runtimes.parity.suite import Prompt, Suite
from runtimes.protocol import BatchRuntime, ManyRuntime, OwnTokenizerRuntime, TextRuntime
from runtimes.registry import open_reference, open_runtime
from tests.exported import export_tiny
from tests.family_checks import some_ids
from tests.required import need
from tests.tiny import FAMILIES, OTHERS, make_checkpoint, write_weights
from tests.tolerance import OTHER_RUNTIME, ROUNDED, relative_error

pytestmark = pytest.mark.numbers

OPENVINO = "openvino"
LONGEST = 8192
PORTABLE = {"graph": "portable"}
# Rows of K-quants' 256 values.
WIDE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
LONG = "The capital of France is Paris, and 42 is a number. <|im_end|> na\u00efve \U0001f642 " * 3


@pytest.fixture(autouse=True)
def _installed() -> None:
    need("openvino_genai", "openvino")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("openvino") / "checkpoint")


def expected(artifact: Artifact, checkpoint: Path, folder: Path, ids: list[int]) -> np.ndarray:
    """PyTorch's logits with the values that our reader finds in the file."""
    shutil.copytree(checkpoint, folder)
    write_weights(folder, dict(dequantise(artifact)))
    reference = open_reference(folder, 1)
    logits = reference.logits(ids)
    reference.close()
    return logits


def in_openvino(artifact: Artifact, ids: list[int]) -> np.ndarray:
    runtime = open_runtime(artifact, 1, OPENVINO)
    logits = runtime.logits(ids)
    runtime.close()
    return logits


# What is between operators is float32 also where the graph says float16; its tables of angles and
# its constants are float16 then.
@pytest.mark.parametrize(
    ("variant", "options", "limit"),
    [
        ("fp32", {}, OTHER_RUNTIME),
        ("q8", {}, OTHER_RUNTIME),
        ("q8", {"target": "native"}, OTHER_RUNTIME),
        ("q4", {}, OTHER_RUNTIME),
        ("fp16", {}, ROUNDED["float16"]),
        ("q4f16", {}, ROUNDED["float16"]),
        ("int8", {}, ROUNDED["int8"]),
        ("fp32", PORTABLE, OTHER_RUNTIME),
        ("fp16", PORTABLE, ROUNDED["float16"]),
        ("q4f16", PORTABLE, ROUNDED["float16"]),
    ],
    ids=str,
)
def test_a_graph_gives_what_its_weights_say(
    checkpoint: Path, tmp_path: Path, variant: str, options: dict[str, Any], limit: float
) -> None:
    artifact, ids = export_tiny(checkpoint, "onnx", variant, tmp_path, **options), some_ids()
    wanted = expected(artifact, checkpoint, tmp_path / "read", ids)
    assert relative_error(in_openvino(artifact, ids), wanted) < limit


def test_an_operator_that_it_lacks_is_named(checkpoint: Path, tmp_path: Path) -> None:
    artifact = export_tiny(checkpoint, "onnx", "bnb4", tmp_path)
    with pytest.raises(InputError, match=r"No conversion rule .*MatMulBnb4") as caught:
        open_runtime(artifact, 1, OPENVINO)
    assert "\n" not in str(caught.value)


def test_only_portable_graphs_take_several_sequences(checkpoint: Path, tmp_path: Path) -> None:
    ids = tuple(some_ids())
    default = open_runtime(export_tiny(checkpoint, "onnx", "fp32", tmp_path), 1, OPENVINO)
    assert not isinstance(default, BatchRuntime)
    assert not isinstance(default, ManyRuntime)
    portable = export_tiny(checkpoint, "onnx", "fp32", tmp_path, **PORTABLE)
    runtime = open_runtime(portable, 1, OPENVINO)
    assert isinstance(runtime, BatchRuntime)
    rows = [ids, ids[:7], ids[:23]]
    for alone, batched in zip(map(runtime.logits, rows), runtime.padded_logits(rows), strict=True):
        assert relative_error(batched, alone) < OTHER_RUNTIME


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "variant"),
    [("tied", "q8_0"), ("mistral", "q8_0"), ("qwen2", "q8_0"), ("qwen3", "q8_0"), ("tied", "q4_0")],
)
def test_genai_takes_from_these_files_what_they_say(
    tmp_path: Path, family: str, variant: str
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **FAMILIES[family])
    artifact, ids = export_tiny(folder, "gguf", variant, tmp_path), some_ids()
    off = differences(artifact)
    assert max(off.values()) == 0
    wanted = expected(artifact, folder, tmp_path / "read", ids)
    assert relative_error(in_openvino(artifact, ids), wanted) < OTHER_RUNTIME


@pytest.mark.slow
def test_genai_rounds_the_minima_of_q4_1(checkpoint: Path, tmp_path: Path) -> None:
    """To whole multiples of the scale; out of 0 … 15 they come in on the other side."""
    artifact, ids = export_tiny(checkpoint, "gguf", "q4_1", tmp_path), some_ids()
    off = differences(artifact)
    assert off.pop("model.embed_tokens.weight") == 0  # of another type
    assert min(off.values()) > 0.02
    wanted = expected(artifact, checkpoint, tmp_path / "read", ids)
    usual = open_runtime(artifact, 1)
    assert relative_error(usual.logits(ids), wanted) < ROUNDED["int8"]
    usual.close()
    assert relative_error(in_openvino(artifact, ids), wanted) > ROUNDED["int8"]


@pytest.mark.slow
def test_genai_rounds_the_minima_of_q4_k(tmp_path: Path) -> None:
    """As of Q4_1; Q6_K has none, and its products of two scales become float16."""
    folder = make_checkpoint(tmp_path / "checkpoint", **WIDE)
    artifact, ids = export_tiny(folder, "gguf", "q4_k_m", tmp_path), some_ids()
    assert set(artifact.manifest.weights["types"]) == {"F32", "Q4_K", "Q6_K"}
    off = differences(artifact)
    finer = ("embed_tokens", "layers.2.self_attn.v_proj", "layers.2.mlp.down_proj")
    assert 0 < max(off.pop(f"model.{name}.weight") for name in finer) < 3e-4
    assert 0.07 < min(off.values()) <= max(off.values()) < 0.09
    wanted = expected(artifact, folder, tmp_path / "read", ids)
    usual = open_runtime(artifact, 1)
    assert relative_error(usual.logits(ids), wanted) < ROUNDED["int8"]
    usual.close()
    assert relative_error(in_openvino(artifact, ids), wanted) > ROUNDED["int8"]


@pytest.mark.parametrize("variant", ["f32", "bf16", "q5_0", "q5_1", "iq4_nl"])
def test_types_that_genai_does_not_read_are_refused(
    checkpoint: Path, tmp_path: Path, variant: str
) -> None:
    artifact = export_tiny(checkpoint, "gguf", variant, tmp_path)
    with pytest.raises(InputError, match=r"\.gguf: OpenVINO cannot run it: ") as caught:
        open_runtime(artifact, 1, OPENVINO)
    assert "\n" not in str(caught.value)
    assert f"its matrices are {variant.upper()}" in str(caught.value)


def test_text_is_split_and_joined_by_genai(checkpoint: Path, tmp_path: Path) -> None:
    artifact = export_tiny(checkpoint, "gguf", "q8_0", tmp_path)
    runtime, usual = open_runtime(artifact, 1, OPENVINO), open_runtime(artifact, 1)
    assert isinstance(runtime, TextRuntime)
    assert isinstance(usual, TextRuntime)
    assert runtime.tokenize(LONG) == usual.tokenize(LONG)
    assert runtime.detokenize(runtime.tokenize(LONG)) == LONG
    beyond = LONG * 300
    ids = usual.tokenize(beyond)
    assert len(ids) > LONGEST
    assert runtime.tokenize(beyond) == ids[-LONGEST:]
    assert isinstance(runtime, OwnTokenizerRuntime)
    assert runtime.splits_otherwise(beyond)
    assert not runtime.splits_otherwise(LONG)
    # The file's own; llama.cpp adds others by their texts.
    assert runtime.stop_tokens == {2} < usual.stop_tokens
    runtime.close()
    usual.close()


@pytest.mark.skipif(sys.platform != "linux", reason="sigaltstack as Linux has it")
@pytest.mark.parametrize(("form", "variant"), [("onnx", "q8"), ("gguf", "q8_0")])
def test_ctrl_c_after_it_is_no_crash(
    checkpoint: Path, tmp_path: Path, form: str, variant: str
) -> None:
    """Its plugin leaves a stack for signals that is freed with it."""
    before = bytes(signal_stack())
    in_openvino(export_tiny(checkpoint, form, variant, tmp_path), [1, 2, 3])
    assert bytes(signal_stack()) == before


def test_what_openvino_saves_is_not_left_in_the_artifact(checkpoint: Path, tmp_path: Path) -> None:
    artifact = export_tiny(checkpoint, "gguf", "q8_0", tmp_path)
    before = sorted(artifact.path.iterdir())
    open_runtime(artifact, 1, OPENVINO).close()
    assert sorted(artifact.path.iterdir()) == before
    assert open_artifact(artifact.path).sha256 == artifact.sha256


def test_reports_say_what_ran_where(checkpoint: Path, tmp_path: Path) -> None:
    places = {("onnx", "fp32"): "OpenVINO", ("gguf", "q8_0"): "OpenVINO GenAI"}
    for (form, variant), place in places.items():
        artifact = export_tiny(checkpoint, form, variant, tmp_path)
        found = execution(artifact, OPENVINO)
        assert (found.device, found.activations, found.real) == ("cpu", "float32", True)
        (unseen,) = found.unseen
        assert unseen.endswith(f"it ran in {place}, on the CPU in float32")
        assert found.place == place
        runtime = open_runtime(artifact, 1, OPENVINO)
        assert runtime.name.startswith("openvino")
        assert runtime.device == "CPU, float32"
        runtime.close()


@pytest.mark.slow
def test_files_of_any_maker_are_audited_in_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "COUNT", 10)
    own = export_tiny(checkpoint, "gguf", "q8_0", tmp_path)
    (own.path / MANIFEST).unlink()
    original = Model(checkpoint, "tiny", None, None, None)
    suite, extent = Suite("some", (Prompt("t", "text", LONG),)), Extent(footprints=False)
    done = audit(
        found_in([own.path]), original, suite, 1, extent, allow_degraded=True, runtime=OPENVINO
    )
    (entry,) = done.result.entries
    assert entry.measurement is not None
    assert entry.measurement.runtime.startswith("openvino-genai")
    places = [found.target for found in advise([entry]).recommendations]
    assert places == ["llama.cpp", "OpenVINO GenAI"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["attention bias", "llama3 rope", "linear rope"])
def test_genai_leaves_out_of_a_llama_what_it_does_not_know(tmp_path: Path, family: str) -> None:
    """Biases of attention, and the scaling of rotary frequencies: the weights are right."""
    folder = make_checkpoint(tmp_path / "checkpoint", **FAMILIES[family])
    artifact, ids = export_tiny(folder, "gguf", "q8_0", tmp_path), some_ids()
    assert max(differences(artifact).values()) == 0
    wanted = expected(artifact, folder, tmp_path / "read", ids)
    assert relative_error(in_openvino(artifact, ids), wanted) > ROUNDED["int8"]


@pytest.mark.slow
def test_the_saved_model_of_f16_has_its_angles_in_float16(checkpoint: Path, tmp_path: Path) -> None:
    """So what is off grows with the position, though the matrices are right."""
    artifact = export_tiny(checkpoint, "gguf", "f16", tmp_path)
    assert max(differences(artifact).values()) == 0
    ids = some_ids() * 2
    wanted = expected(artifact, checkpoint, tmp_path / "read", ids)
    found = in_openvino(artifact, ids)
    first, last = (
        relative_error(found[part], wanted[part]) for part in (slice(20), slice(-20, None))
    )
    assert OTHER_RUNTIME < first < last


@pytest.mark.slow
def test_every_family_is_right_as_onnx(tmp_path: Path) -> None:
    for name, changes in {**FAMILIES, **OTHERS}.items():
        root = tmp_path / name.replace(" ", "-")
        folder = make_checkpoint(root / "checkpoint", **changes)
        artifact, ids = export_tiny(folder, "onnx", "fp32", root), some_ids()
        usual = open_runtime(artifact, 1)
        error = relative_error(in_openvino(artifact, ids), usual.logits(ids))
        usual.close()
        assert error < OTHER_RUNTIME, name


@pytest.mark.parametrize("family", ["olmo2", "smollm3", "granite"])
def test_families_that_genai_does_not_read_are_refused(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **OTHERS[family])
    artifact = export_tiny(folder, "gguf", "q8_0", tmp_path)
    with pytest.raises(InputError, match=r"\.gguf: OpenVINO cannot run it: ") as caught:
        open_runtime(artifact, 1, OPENVINO)
    assert "\n" not in str(caught.value)
