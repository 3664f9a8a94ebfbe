"""K- and IQ-types are llama.cpp's own bytes, labelled with what is really in the file."""

from __future__ import annotations

import ctypes
import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from click.testing import CliRunner
from gguf import GGMLQuantizationType, GGUFReader, LlamaFileType

from edgeproof.artifact import Artifact, Precision, fallback_text
from export import job
from export.checkpoint import open_checkpoint
from export.gguf import FORMAT, llama_quantize
from export.gguf.__main__ import main
from export.gguf.recipe import MIXTURES, with_overrides
from export.sources import Source
from runtimes import llamacpp
from runtimes.weights import gguf as weights_reader
from tests.exported import export_tiny
from tests.tiny import FAMILIES, VOCAB, make_checkpoint

# Where every row divides into 256, where none does, and where only ffn_down does.
WHOLE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "tie_word_embeddings": False,
}
UNEVEN = {"hidden_size": 64, "intermediate_size": 160}
PARTLY = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 5}
SHAPES: dict[str, dict[str, Any]] = {"whole": WHOLE, "uneven": UNEVEN, "partly": PARTLY}
NAMES = [name.lower() for name in MIXTURES]


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp(request.param) / "m", **SHAPES[request.param])


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in GGUFReader(path).tensors}


def llama_quantise(source: Path, file_type: int, target: Path, **params: Any) -> Path:
    """llama.cpp's own quantiser, called as its documentation says."""
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = file_type, 1
    for key, value in params.items():
        setattr(settings, key, value)
    with llamacpp.captured_log():
        status = llama_cpp.llama_model_quantize(
            os.fsencode(source), os.fsencode(target), ctypes.byref(settings)
        )
    assert status == 0
    return target


def export(folder: Path, root: Path, variant: str, **changes: Any) -> Artifact:
    """Export with overrides."""
    source, opened = Source(path=folder, label="tiny"), open_checkpoint(folder)
    chosen = with_overrides(FORMAT.variant(variant), **changes)
    wanted = job.Job(source, opened, job.identify(source, opened), FORMAT, chosen)
    return job.run(wanted, root, lambda count: None).artifact


def command(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    return result.exit_code, result.output


@pytest.mark.parametrize("variant", NAMES)
def test_bytes_are_those_of_llama_quantize(model: Path, tmp_path: Path, variant: str) -> None:
    source = export_tiny(model, "gguf", "f32", tmp_path).file(".gguf")
    direct = llama_quantise(source, MIXTURES[variant.upper()], tmp_path / "direct.gguf")
    artifact = export_tiny(model, "gguf", variant, tmp_path)
    assert tensors(artifact.file(".gguf")) == tensors(direct)
    reader = GGUFReader(artifact.file(".gguf"))
    kind = LlamaFileType(reader.get_field("general.file_type").contents())
    assert kind.value == GGUFReader(direct).get_field("general.file_type").contents()
    assert artifact.file(".gguf").name.endswith(f"-{variant.upper()}.gguf")
    assert artifact.manifest.variant.precision is Precision.LOW_BIT


@pytest.mark.parametrize("variant", ["q8_0", "q5_0", "q5_1", "q4_0", "q4_1"])
@pytest.mark.parametrize("pure", [False, True])
def test_types_written_here_are_those_of_llama_quantize(
    tmp_path: Path, variant: str, pure: bool
) -> None:
    folder = make_checkpoint(tmp_path / "m", **UNEVEN)
    source = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    file_type = LlamaFileType[f"MOSTLY_{variant.upper()}"].value
    direct = llama_quantise(source, file_type, tmp_path / "direct.gguf", pure=pure)
    artifact = export(folder, tmp_path, variant, pure=pure)
    assert tensors(artifact.file(".gguf")) == tensors(direct)


@pytest.mark.parametrize("variant", ["q4_k_m", "q4_0"])
@pytest.mark.parametrize("family", ["biases", "llama3 rope", "qwen2", "qwen3"])
def test_biases_norms_and_rope_divisors_stay_float32(
    tmp_path: Path, family: str, variant: str
) -> None:
    folder = make_checkpoint(tmp_path / "m", **{**FAMILIES[family], **WHOLE})
    source = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    file_type = LlamaFileType[f"MOSTLY_{variant.upper()}"].value
    direct = llama_quantise(source, file_type, tmp_path / "direct.gguf", pure=variant == "q4_0")
    artifact = export(folder, tmp_path, variant, pure=variant == "q4_0")
    assert tensors(artifact.file(".gguf")) == tensors(direct)
    flat = [t for t in GGUFReader(artifact.file(".gguf")).tensors if len(t.shape) == 1]
    assert {tensor.tensor_type.name for tensor in flat} == {"F32"}
    kinds = {tensor.name.split(".")[-2] for tensor in flat if tensor.name.endswith(".bias")}
    assert {f"{kind}_bias" for kind in kinds} <= artifact.manifest.weights["classes"].keys()
    assert sum(t["elements"] for t in artifact.manifest.weights["types"].values()) == (
        artifact.manifest.model.parameters
    )


@pytest.mark.parametrize("variant", NAMES)
def test_llama_cpp_and_the_reader_take_every_file(tmp_path: Path, variant: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **WHOLE)
    artifact = export_tiny(folder, "gguf", variant, tmp_path)
    exact = weights_reader.read(export_tiny(folder, "gguf", "f32", tmp_path))
    for name, values in weights_reader.read(artifact).items():
        assert np.abs(values - exact[name]).mean() < 0.5 * np.abs(exact[name]).mean(), name
    runtime = llamacpp.open_runtime(artifact, 1)
    try:
        logits = runtime.logits(np.random.default_rng(0).integers(0, VOCAB, 9).tolist())
    finally:
        runtime.close()
    assert np.isfinite(logits).all()
    assert logits.std() > 0


def test_the_label_counts_what_is_not_in_the_type_asked_for(model: Path, tmp_path: Path) -> None:
    """Against the whole shape, where nothing falls back: the same tensors, other types."""
    artifact = export_tiny(model, "gguf", "q4_k_m", tmp_path)
    found = {name: kind for name, (kind, _) in tensors(artifact.file(".gguf")).items()}
    matrices = {n: k for n, k in found.items() if not n.endswith("norm.weight")}
    other = {n for n, kind in matrices.items() if not kind.endswith("_K")}
    weights = artifact.manifest.weights
    assert sum(item["tensors"] for item in weights["fallbacks"]) == len(other)
    sizes = {t.name: int(t.n_elements) for t in GGUFReader(artifact.file(".gguf")).tensors}
    share = sum(sizes[name] for name in other) / artifact.manifest.model.parameters
    assert weights["fallback_share"] == pytest.approx(share, abs=1e-6)
    assert (fallback_text(weights) is None) == (not other)
    for kind, types in weights["classes"].items():
        members = {n for n in found if n.split(".")[-2] == kind}
        assert set(types) == {found[name] for name in members}


def test_an_export_twice_and_with_other_threads_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path / "m", **WHOLE)
    first = export(folder, tmp_path / "a", "q4_k_m").file(".gguf")
    monkeypatch.setattr(llama_quantize.os, "cpu_count", lambda: 5)
    monkeypatch.setattr(llama_quantize, "BUFFER_BYTES", 1 << 16)
    assert export(folder, tmp_path / "b", "q4_k_m").file(".gguf").read_bytes() == first.read_bytes()


def test_half_precision_checkpoints_are_quantised_from_their_exact_values(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", dtype="BF16", **WHOLE)
    source = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    direct = llama_quantise(source, MIXTURES["Q4_K_S"], tmp_path / "direct.gguf")
    artifact = export_tiny(folder, "gguf", "q4_k_s", tmp_path)
    assert tensors(artifact.file(".gguf")) == tensors(direct)


def test_a_new_llama_cpp_rebuilds_its_own_types_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path / "m")
    model = ("--model", folder, "--out", tmp_path / "out", "--dtype", "f16,q4_k_m")
    assert command(*model)[0] == 0
    assert command(*model)[1].count("reused") == 2
    monkeypatch.setattr(metadata, "version", lambda name: "99.0")
    lines = [line for line in command(*model)[1].splitlines() if line.startswith("gguf")]
    assert ["reused" in line for line in lines] == [True, False]


def test_without_llama_cpp_only_its_own_types_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    folder = make_checkpoint(tmp_path / "m")
    monkeypatch.setattr(metadata, "version", missing)
    model = ("--model", folder, "--out", tmp_path / "out", "--dtype")
    assert command(*model, "q5_0")[0] == 0
    code, output = command(*model, "q4_k_m")
    assert code == 2
    assert 'pip install "edgeproof[llamacpp]"' in output
    assert not (tmp_path / "out").joinpath("m", "gguf", "q4_k_m").exists()


def test_strict_refuses_a_fallback_and_leaves_nothing(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", **UNEVEN)
    out = tmp_path / "out"
    model = ("--model", folder, "--out", out, "--dtype", "q4_k_m")
    code, output = command(*model, "--strict")
    assert code == 2
    assert "rows of 64/160 do not divide into 256" in output
    assert not [path for path in out.rglob("*") if path.is_file()]
    code, output = command(*model)
    assert code == 0
    assert "fallback: 22 of 29 tensors (100 % of weights) are Q5_0/Q8_0: rows of 64/160" in output
    assert command(*model, "--strict")[0] == 2  # the artifact that is there is no excuse
    assert command(*model, "--strict", "--dry-run")[0] == 2


def test_strict_accepts_what_is_stored_as_asked(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", **WHOLE)
    code, output = command("-m", folder, "-o", tmp_path / "out", "-d", "q4_k_m,q4_0", "--strict")
    assert code == 0
    assert "fallback" not in output
    assert "ffn_down Q4_K+Q6_K" in output or "attn_v ffn_down Q4_K+Q6_K" in output


def test_a_dry_run_tells_the_size_of_the_file(model: Path, tmp_path: Path) -> None:
    opened, source = open_checkpoint(model), Source(path=model, label="tiny")
    identity, variant = job.identify(source, opened), FORMAT.variant("q4_k_m")
    wanted = job.Job(source, opened, identity, FORMAT, variant)
    told = job.rehearse(wanted, lambda count: None)
    artifact = export(model, tmp_path, "q4_k_m")
    assert told.bytes == artifact.file(".gguf").stat().st_size
    assert json.loads(json.dumps(told.weights)) == artifact.manifest.weights


def override(pattern: str, kind: str) -> Any:
    array = (llama_cpp.llama_cpp.llama_model_tensor_override * 2)()
    array[0].pattern, array[0].type = pattern.encode(), GGMLQuantizationType[kind].value
    return ctypes.cast(array, ctypes.POINTER(llama_cpp.llama_cpp.llama_model_tensor_override))


@pytest.mark.parametrize("variant", ["q4_k_m", "q4_0", "q8_0"])
@pytest.mark.parametrize(
    ("changes", "params", "name"),
    [
        ({"pure": True}, {"pure": True}, "pure"),
        ({"token_embedding_type": "q6_k"}, {"token_embedding_type": 14}, "token-embedding-q6_k"),
        ({"token_embedding_type": "q5_0"}, {"token_embedding_type": 6}, "token-embedding-q5_0"),
        ({"output_tensor_type": "f16"}, {"output_tensor_type": 1}, "output-tensor-f16"),
        ({"tensor_type": ["attn_v=q5_1"]}, {"tt_overrides": ("attn_v", "Q5_1")}, "attn_v-q5_1"),
        (
            {"tensor_type": [r"blk\.[01]\.ffn=q3_k"]},
            {"tt_overrides": (r"blk\.[01]\.ffn", "Q3_K")},
            None,
        ),
    ],
)
def test_overrides_do_what_llama_quantize_does(
    tmp_path: Path,
    variant: str,
    changes: dict[str, Any],
    params: dict[str, Any],
    name: str | None,
) -> None:
    folder = make_checkpoint(tmp_path / "m", **WHOLE)
    source = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    patterns = params.get("tt_overrides")
    params = {**params, "tt_overrides": override(*patterns)} if patterns else params
    file_type = LlamaFileType[f"MOSTLY_{variant.upper()}"].value
    expected = tensors(llama_quantise(source, file_type, tmp_path / "direct.gguf", **params))
    artifact = export(folder, tmp_path, variant, **changes)
    found = tensors(artifact.file(".gguf"))
    stand_in = variant == "q4_0" and "Q6_K" in {kind for kind, _ in expected.values()}
    if stand_in and found["output.weight"][0] == "Q8_0":  # the documented difference
        del found["output.weight"], expected["output.weight"]
    assert found == expected
    folder_name = artifact.manifest.variant.name
    assert folder_name.startswith(f"{variant}-")
    assert name is None or folder_name == f"{variant}-{name}"
    assert artifact.path.name == folder_name
    assert artifact.file(".gguf").stem.endswith(variant.upper() + folder_name[len(variant) :])


def test_two_recipes_never_share_a_name() -> None:
    patterns = ["attn_v=q8_0", "attn_v=q5_0", "attn_.=q8_0", r"attn_.\.=q8_0", r"attn_[qv]=q8_0"]
    long = [f"{'a' * 40}{end}=q8_0" for end in "bc"]
    changes: list[dict[str, Any]] = [
        {},
        {"pure": True},
        {"token_embedding_type": "q8_0"},
        {"output_tensor_type": "q8_0"},
        *({"tensor_type": [item]} for item in [*patterns, *long, "output=q8_0", "pure=q8_0"]),
        {"tensor_type": patterns[:2]},
        {"tensor_type": patterns[1::-1]},
    ]
    names = {with_overrides(FORMAT.variant("q4_0"), **change).name for change in changes}
    assert len(names) == len(changes)
    assert all("/" not in name and len(name) < 100 for name in names)


def test_the_precision_is_that_of_the_worst_type() -> None:
    q8_0 = FORMAT.variant("q8_0")
    assert with_overrides(q8_0, token_embedding_type="q4_0").precision is Precision.LOW_BIT
    assert with_overrides(q8_0, token_embedding_type="f16").precision is Precision.EIGHT_BIT
    assert (
        with_overrides(FORMAT.variant("f16"), tensor_type=["v=q8_0"]).precision
        is Precision.EIGHT_BIT
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "q4_k_m", "--tensor-type", "attn_w=q8_0"], "no tensor's name matches"),
        (["-d", "q4_0", "--tensor-type", "attn_norm=q8_0"], "no tensor's name matches"),
        (["-d", "q4_0", "--tensor-type", "attn_v"], "is not PATTERN=TYPE"),
        (["-d", "q4_0", "--tensor-type", "attn_(=q8_0"], "not a regular expression"),
        (["-d", "q4_0", "--tensor-type", "attn_v=q9_0"], "unknown type 'q9_0'"),
        (["-d", "q4_0", "--token-embedding-type", "q4_k_m"], "unknown type 'q4_k_m'"),
        (["-d", "q4_0", "--token-embedding-type", "q4_k"], "blocks of 256 values"),
        (["-d", "f16", "--tensor-type", "attn_v=q4_k"], "changes no tensors of F16"),
        (["-d", "q4_0", "--pure", "--output-tensor-type", "q8_0"], "leave one of them out"),
        (["-d", "q4_k"], "has no dtype 'q4_k'"),
    ],
)
def test_overrides_without_effect_are_refused(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    folder = make_checkpoint(tmp_path / "m")
    code, output = command("-m", folder, "-o", tmp_path / "out", *arguments)
    assert code == 2
    assert message in output
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
