"""A family that is defined wholly in here goes to every format whose runtime can compute it.

Its config.json says where norms are, which activation there is, what is multiplied, which layers
rotate and which have a window. A model in NumPy says what that means; where transformers has such
a decoder, it is the same (`test_numpy_decoder`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, Family, Role, family
from edgeproof.families.dense import NAMES, read_activation, read_dense
from edgeproof.families.llama_cpp import LlamaCppArchitecture
from edgeproof.families.mlc import MlcArchitecture
from edgeproof.families.rope import Rope
from edgeproof.families.structure import Multipliers, Norm, Structure
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.registry import open_runtime
from tests import numpy_decoder
from tests.exported import export_tiny
from tests.family_checks import check_runtime, some_ids
from tests.numpy_decoder import GEMMA3, GRANITE, OLMO2, PLAIN
from tests.tiny import make_checkpoint
from tests.tolerance import OTHER_RUNTIME, ROUNDED, relative_error

pytestmark = pytest.mark.numbers

BEFORE, AFTER = (Role.INPUT_NORM, Role.MLP_NORM), (Role.ATTENTION_OUT_NORM, Role.MLP_OUT_NORM)
HEADS = (Role.QUERY_NORM, Role.KEY_NORM)
NORM_ORDERS = {"pre": BEFORE, "post": AFTER, "both": (*BEFORE, *AFTER)}


def config(raw: Mapping[str, Any], name: str = "toy") -> DecoderConfig:
    dense = read_dense(raw, name, window=raw.get("sliding_window"))
    return replace(dense, structure=structure(dense.structure, raw))


def structure(plain: Structure, raw: Mapping[str, Any]) -> Structure:
    """Of config.json, and of MLC's `model_config`, which has the same keys."""
    stated = {**PLAIN, **raw}
    norm = Norm(stated["norm_offset"])
    norms = dict.fromkeys((*NORM_ORDERS[stated["norm_order"]], Role.FINAL_NORM), norm)
    if stated["head_norms"]:
        norms |= dict.fromkeys(HEADS, replace(norm, per_head=stated["head_norms"] == "each"))
    layers = plain.layers
    if stated["thetas"]:
        layers = tuple(
            replace(layer, rope=Rope(theta) if theta else None)
            for layer, theta in zip(layers, stated["thetas"], strict=True)
        )
    return Structure(
        layers,
        Multipliers(
            attention=stated["attention_multiplier"],
            embedding=stated["embedding_multiplier"],
            residual=stated["residual_multiplier"],
            logits=1 / stated["logits_scaling"],
        ),
        norms,
        read_activation(stated["hidden_act"]),
        stated["gated"],
        stated["softcap"],
    )


def mlc_keys(config: DecoderConfig) -> dict[str, Any]:
    s = config.structure
    order = {frozenset(roles): name for name, roles in NORM_ORDERS.items()}
    head_norm = s.norms.get(Role.QUERY_NORM)
    return {
        "norm_order": order[frozenset(s.norms) - {*HEADS, Role.FINAL_NORM}],
        "head_norms": head_norm and ("each" if head_norm.per_head else "together"),
        "hidden_act": s.activation.value,
        "gated": s.gated,
        "embedding_multiplier": s.multipliers.embedding,
        "attention_multiplier": s.multipliers.attention,
        "residual_multiplier": s.multipliers.residual,
        "logits_scaling": 1 / s.multipliers.logits,
        "thetas": [layer.rope.theta if layer.rope else 0 for layer in s.layers],
    }


def as_olmo2(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """What llama.cpp's graph of that name computes."""
    return replace(plain, norms=dict.fromkeys((*AFTER, *HEADS, Role.FINAL_NORM), Norm()))


def as_granite(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """What llama.cpp's graph of that name computes from the file's keys."""
    multipliers = Multipliers(
        attention=keys["attention.scale"],
        embedding=keys["embedding_scale"],
        residual=keys["residual_scale"],
        logits=1 / keys["logit_scale"],
    )
    return replace(plain, multipliers=multipliers)


def granite_keys(config: DecoderConfig) -> dict[str, Any]:
    multipliers = config.structure.multipliers
    return {
        "attention.scale": multipliers.attention,
        "embedding_scale": multipliers.embedding,
        "residual_scale": multipliers.residual,
        "logit_scale": 1 / multipliers.logits,
    }


LAYER = "model.layers.{layer}."
FAMILY = Family(
    config,
    {
        **NAMES,
        Role.ATTENTION_OUT_NORM: f"{LAYER}post_attention_layernorm",
        Role.MLP_NORM: f"{LAYER}pre_feedforward_layernorm",
        Role.MLP_OUT_NORM: f"{LAYER}post_feedforward_layernorm",
    },
    LlamaCppArchitecture(
        "olmo2",
        rotary_pairs=False,
        biases=frozenset(),
        rope_freqs=False,
        extents=False,
        tied=False,
        structure=as_olmo2,
    ),
    MlcArchitecture("toy", structure, mlc_keys),
)
# The same with another architecture in llama.cpp, to whose file its multipliers go.
MULTIPLIED = replace(
    FAMILY,
    config=partial(config, name="multiplied"),
    llama_cpp=LlamaCppArchitecture(
        "granite",
        rotary_pairs=True,
        biases=frozenset(),
        rope_freqs=True,
        extents=True,
        structure=as_granite,
        keys=granite_keys,
    ),
)

STRUCTURES: dict[str, dict[str, Any]] = {
    "as OLMo 2": OLMO2,
    "as Gemma 3": GEMMA3,
    "as Granite": GRANITE,
    "of everything": {
        **GRANITE,
        "norm_order": "post",
        "norm_offset": 0.5,
        "hidden_act": "gelu_pytorch_tanh",
        "gated": False,
        "thetas": [1000.0, 0, 50000.0],
        "tie_word_embeddings": False,
    },
}


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    """The model in NumPy of a checkpoint: float64 [T, V]."""
    raw = json.loads((folder / "config.json").read_text())
    return numpy_decoder.logits(raw, load_file(folder / "model.safetensors"), ids)


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The family's package as pip would leave it."""
    tmp_path: Path = request.getfixturevalue("tmp_path")
    declare(tmp_path / "site", f"{__name__}:FAMILY")
    declare(tmp_path / "site", f"{__name__}:MULTIPLIED", "multiplied")
    monkeypatch.syspath_prepend(tmp_path / "site")


def declare(site: Path, value: str, name: str = "toy") -> None:
    info = site / f"{name}_family-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-family\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[edgeproof.families]\n{name} = {value}\n")


def checkpoint(tmp_path: Path, changes: Mapping[str, Any]) -> Path:
    return make_checkpoint(tmp_path / "checkpoint", **{"model_type": "toy", **changes})


def check(artifact: Artifact, folder: Path, limit: float) -> None:
    """Logits of a whole text, and step by step through the KV cache, are the NumPy model's."""
    ids = some_ids()
    check_runtime(artifact, ids, logits(folder, ids), limit)


@pytest.mark.parametrize("graph", ["fused", "portable"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_onnx_computes_it(tmp_path: Path, name: str, graph: str) -> None:
    folder = checkpoint(tmp_path, STRUCTURES[name])
    check(export_tiny(folder, "onnx", "fp32", tmp_path, graph=graph), folder, OTHER_RUNTIME)


# That of OLMo 2 is one of our families' (`test_family_formats`); the multipliers are in the last.
@pytest.mark.parametrize("name", ["as Gemma 3", "of everything"])
def test_the_decoder_in_tvm_computes_what_mlc_would(tmp_path: Path, name: str) -> None:
    pytest.importorskip("tvm")
    folder = checkpoint(tmp_path, STRUCTURES[name])
    check(export_tiny(folder, "mlc", "q0f32", tmp_path, raw_f32=True), folder, OTHER_RUNTIME)


IN_LLAMA_CPP: dict[str, dict[str, Any]] = {
    "post-norms": OLMO2,
    "of one plus weight": {**OLMO2, "norm_offset": 1.0, "dtype": "BF16"},
    "multipliers": {**GRANITE, "model_type": "multiplied"},
}


@pytest.mark.parametrize("name", IN_LLAMA_CPP)
def test_llama_cpp_computes_what_its_architecture_does(tmp_path: Path, name: str) -> None:
    pytest.importorskip("llama_cpp")
    folder = checkpoint(tmp_path, IN_LLAMA_CPP[name])
    check(export_tiny(folder, "gguf", "f32", tmp_path), folder, OTHER_RUNTIME)


WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "onnx": ("fp32", {}),
    "onnx portable": ("fp16", {"graph": "portable"}),
    "onnx scaled": ("fp16", {"residual_scale": 0.25}),
    "mlc": ("q0f32", {}),
}


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((form, name) for form in WHOLE for name in ("as Gemma 3", "as Granite")),
        *((form, "of everything") for form in WHOLE if form != "onnx scaled"),
    ],
)
def test_parity_finds_nothing_wrong_with_what_its_files_say(
    tmp_path: Path, form: str, name: str
) -> None:
    folder = checkpoint(tmp_path, STRUCTURES[name])
    variant, options = WHOLE[form]
    artifact = export_tiny(folder, form.partition(" ")[0], variant, tmp_path, **options)
    assert compare_metadata(artifact, folder) == ()


@pytest.mark.parametrize("form", ["gguf", "mlc"])
def test_parity_finds_a_wrong_multiplier(tmp_path: Path, form: str) -> None:
    folder = checkpoint(tmp_path, {**GRANITE, "model_type": "multiplied"})
    artifact = export_tiny(folder, form, {"gguf": "f32", "mlc": "q0f32"}[form], tmp_path)
    assert compare_metadata(artifact, folder) == ()
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "embedding_multiplier": 11.0}))
    (finding,) = compare_metadata(artifact, folder)
    assert "embedding_" in finding.text
    assert "is 12.0, expected 11.0" in finding.text


@pytest.mark.parametrize("variant", ["fp16", "q4f16"])
@pytest.mark.parametrize("graph", ["fused", "portable"])
def test_a_scaled_residual_stream_changes_nothing_behind_post_norms(
    tmp_path: Path, graph: str, variant: str
) -> None:
    """A power of two: float16 rounds the same, but for the smallest numbers."""
    folder = checkpoint(tmp_path, GEMMA3)
    options = {"graph": graph}
    plain = export_tiny(folder, "onnx", variant, tmp_path, **options)
    scaled = export_tiny(folder, "onnx", variant, tmp_path, residual_scale=0.25, **options)
    found = []
    for artifact in (plain, scaled):
        runtime = open_runtime(artifact, 1)
        found.append(runtime.logits(some_ids()))
        runtime.close()
    assert relative_error(found[1], found[0]) < ROUNDED["float16"]


def test_a_residual_stream_that_is_read_without_a_norm_is_not_scaled(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, OLMO2)
    with pytest.raises(InputError, match="--residual-scale: this model's layers read"):
        export_tiny(folder, "onnx", "fp16", tmp_path, residual_scale=0.25)


def test_tvm_computes_what_the_artifact_states(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    folder = checkpoint(tmp_path, GEMMA3)
    artifact = export_tiny(folder, "mlc", "q0f32", tmp_path, raw_f32=True)
    path = artifact.path / "mlc-chat-config.json"
    stated = json.loads(path.read_text())
    stated["model_config"]["hidden_act"] = "silu"
    path.write_text(json.dumps(stated))
    runtime = open_runtime(open_artifact(artifact.path), 1)
    assert relative_error(runtime.logits(some_ids()), logits(folder, some_ids())) > 1e-2
    runtime.close()
    stated["model_config"]["norm_order"] = "sideways"
    path.write_text(json.dumps(stated))
    with pytest.raises(InputError, match=r"mlc-chat-config\.json: 'sideways' is missing"):
        open_runtime(open_artifact(artifact.path), 1)


LACKS = {
    "onnx": ("fp32", "ONNX: {} is not supported yet"),
    "gguf": ("f32", "{}: llama.cpp's olmo2 does not compute that; export this model to ONNX"),
    "mlc": ("q0f32", "MLC: {} is not supported yet; export this model to GGUF or ONNX instead"),
}


@pytest.mark.parametrize("form", LACKS)
def test_a_soft_cap_is_refused_in_a_line(tmp_path: Path, form: str) -> None:
    variant, text = LACKS[form]
    folder = checkpoint(tmp_path, {**OLMO2, "softcap": 30.0})
    with pytest.raises(InputError) as caught:
        export_tiny(folder, form, variant, tmp_path)
    assert text.format("a soft cap of 30.0 on logits") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        ({"norm_order": "pre"}, "a norm before attention"),
        ({"norm_order": "both"}, "a norm before attention"),
        ({"head_norms": None}, "no norm of queries"),
        ({"head_norms": "each"}, "a norm of queries, head by head"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "activation 'gelu_pytorch_tanh'"),
        ({"gated": False}, "an MLP without a gate"),
        ({"embedding_multiplier": 8.0}, "embedding multiplier 8"),
        ({"attention_multiplier": 0.2}, "attention multiplier 0.2"),
        ({"residual_multiplier": 0.5}, "residual multiplier 0.5"),
        ({"logits_scaling": 4.0}, "logits multiplier 0.25"),
        ({"thetas": [100000.0, 0, 100000.0]}, "no rotary embedding in layer 1"),
        ({"thetas": [100000.0, 100000.0, 10.0]}, "rope_theta 10 in layer 2"),
    ],
)
def test_what_llama_cpp_would_not_compute_is_named(
    tmp_path: Path, changes: dict[str, Any], feature: str
) -> None:
    folder = checkpoint(tmp_path, {**OLMO2, **changes})
    with pytest.raises(InputError, match=feature) as caught:
        export_tiny(folder, "gguf", "f32", tmp_path)
    assert LACKS["gguf"][1].format(feature) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_head_that_llama_cpp_would_not_find_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, {**OLMO2, "tie_word_embeddings": True})
    with pytest.raises(InputError, match=r"llama\.cpp's olmo2 has no tied head; export this model"):
        export_tiny(folder, "gguf", "f32", tmp_path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:FAMILY", "No module named 'no_such_module'"),
        (f"{__name__}:NO_FAMILY", "has no attribute 'NO_FAMILY'"),
        (f"{__name__}:PLAIN", r"is no edgeproof\.families\."),
    ],
)
def test_a_family_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    declare(tmp_path / "other", value, "other")
    monkeypatch.syspath_prepend(tmp_path / "other")
    with pytest.raises(InputError, match=reason) as caught:
        family("other")
    assert value in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_is_named_among_the_known_families(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown architecture 'mamba'; supported: .*, toy$"):
        make_checkpoint(tmp_path / "other", model_type="mamba")
    assert family("toy") is FAMILY
