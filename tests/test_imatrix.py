"""The importance matrix: the sums are the model's, the file is llama.cpp's, the export uses it."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from gguf import GGUFReader, LlamaFileType

from edgeproof.artifact import Precision, open_artifact
from export.gguf.__main__ import main as export_main
from runtimes.imatrix import matrix
from runtimes.imatrix.__main__ import main as imatrix_main
from runtimes.parity.localise.tensors import compare_tensors
from runtimes.pytorch import open_reference
from runtimes.weights.fused import Heads
from tests.exported import export_tiny
from tests.test_command_line import run as run_process
from tests.test_gguf_mixtures import UNEVEN, WHOLE, llama_quantise, tensors
from tests.tiny import FAMILIES, VOCAB, make_checkpoint

pytestmark = pytest.mark.numbers

NAMES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]


def run(command: Any, *arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)
    return result.exit_code, result.output


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A checkpoint with a short context, so that texts are short too."""
    return make_checkpoint(tmp_path / "small", max_position_embeddings=64)


def make_matrix(folder: Path, out: Path, *more: str | Path) -> str:
    code, output = run(
        imatrix_main, "--checkpoint", folder, "-o", out, "--tokens", "150", "--threads", "1", *more
    )
    assert code == 0, output
    return output


def write_matrix(path: Path, layers: int, hidden: int, inner: int, **changes: Any) -> Path:
    """Random importance for a model of that shape; `changes` are entries, None removes one."""
    rng = np.random.default_rng(0)
    sums = {
        f"blk.{layer}.{name}.weight": (
            rng.lognormal(0, 3, inner if name == "ffn_down" else hidden), 7
        )
        for layer in range(layers)
        for name in NAMES
    }  # fmt: skip
    merged = {name: entry for name, entry in {**sums, **changes}.items() if entry is not None}
    path.write_bytes(matrix.encode(merged, "/home/me/texts/book.txt", 3, 256))
    return path


def weights_of(path: Path) -> Any:
    """The file as llama-quantize gives it to llama.cpp, read by gguf-py."""
    found = {t.name: t.data.astype(np.float32).reshape(-1) for t in GGUFReader(path).tensors}
    means = {
        name.removesuffix(".in_sum2"): sums / found[name.replace(".in_sum2", ".counts")]
        for name, sums in found.items()
        if name.endswith(".in_sum2")
    }
    array = (llama_cpp.llama_cpp.llama_model_imatrix_data * (len(means) + 1))()
    for entry, (name, values) in zip(array, means.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    array.keep = means
    return array


def test_sums_are_those_of_the_layers_inputs(checkpoint_folder: Path) -> None:
    """Against transformers' own hidden states, the norms applied by hand."""
    ids = np.random.default_rng(0).integers(0, VOCAB, 50).tolist()
    reference = open_reference(checkpoint_folder, 1)
    sums = reference.input_square_sums(ids)
    again = reference.input_square_sums(ids[:20])
    model = transformers.LlamaForCausalLM.from_pretrained(
        checkpoint_folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.inference_mode():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for number, layer in enumerate(model.model.layers):
            expected = layer.input_layernorm(states[number])[0].double().square().sum(0).numpy()
            for name in "qkv":
                found, count = sums[f"model.layers.{number}.self_attn.{name}_proj.weight"]
                assert (found.dtype, found.shape, count) == (np.float64, (64,), 50)
                np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(sums) == 3 * len(NAMES)
    assert sums["model.layers.1.mlp.down_proj.weight"][0].shape == (160,)
    assert {count for _, count in again.values()} == {20}  # no hook was left behind


def test_the_file_is_llama_imatrix_format_and_the_same_twice(small: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The capital of France is Paris, and 42 is a number.\n" * 200)
    for more in ((), ("--calibration", text)):
        first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
        assert "from the cache" not in make_matrix(small, first, *more)
        assert "from the cache" in make_matrix(small, second, *more)
        assert first.read_bytes() == second.read_bytes()
        assert "from the cache" not in make_matrix(small, second, *more, "--force")
        assert first.read_bytes() == second.read_bytes()
        reader = GGUFReader(first)
        values = {key: field.contents() for key, field in reader.fields.items()}
        assert values["general.type"] == "imatrix"
        assert "general.architecture" not in values
        assert (values["imatrix.chunk_count"], values["imatrix.chunk_size"]) == (3, 64)
        dataset = values["imatrix.datasets"]
        assert dataset == ["text.txt"] if more else "own text" in dataset[0]
        found = {t.name: t for t in reader.tensors}
        assert list(found) == sorted(found, key=lambda n: (n.rpartition(".")[0], n[-1] != "2"))
        assert len(found) == 2 * 3 * len(NAMES)
        assert found["blk.2.ffn_down.weight.in_sum2"].data.shape == (160,)
        assert found["blk.0.attn_q.weight.counts"].data.tolist() == [150.0]
        assert str(tmp_path) not in first.read_bytes().decode(errors="replace")


@pytest.mark.parametrize("family", ["biases", "qwen2", "qwen3"])
def test_every_family_has_one_that_the_export_takes(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **FAMILIES[family], max_position_embeddings=64)
    make_matrix(folder, tmp_path / "i.gguf")
    options = ("-m", folder, "-d", "q4_0", "-o", tmp_path, "--imatrix", tmp_path / "i.gguf")
    code, output = run(export_main, *options)
    assert code == 0, output


def test_another_text_or_checkpoint_is_another_matrix(tmp_path: Path) -> None:
    folders = [
        make_checkpoint(tmp_path / str(seed), seed=seed, max_position_embeddings=64)
        for seed in range(2)
    ]
    files = [tmp_path / f"{seed}.gguf" for seed in range(2)]
    for folder, file in zip(folders, files, strict=True):
        assert "from the cache" not in make_matrix(folder, file)
    assert files[0].read_bytes() != files[1].read_bytes()


@pytest.mark.parametrize("shape", [WHOLE, UNEVEN], ids=["whole", "uneven"])
@pytest.mark.parametrize("variant", ["q4_0", "q4_1", "q5_0", "q5_1", "q4_k_m", "iq4_nl", "q2_k"])
def test_bytes_are_those_of_llama_quantize(
    tmp_path: Path, variant: str, shape: dict[str, Any]
) -> None:
    folder = make_checkpoint(tmp_path / "m", **shape)
    layers = shape.get("num_hidden_layers", 3)
    file = write_matrix(
        tmp_path / "i.gguf", layers, shape["hidden_size"], shape["intermediate_size"]
    )
    source = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    kind = LlamaFileType[f"MOSTLY_{variant.upper()}"].value
    direct = llama_quantise(source, kind, tmp_path / "direct.gguf", imatrix=weights_of(file))
    artifact = export_tiny(folder, "gguf", variant, tmp_path, imatrix=file)
    found = tensors(artifact.file(".gguf"))
    assert found == tensors(direct)
    assert found != tensors(export_tiny(folder, "gguf", variant, tmp_path).file(".gguf"))
    assert artifact.path.name == f"{variant}-imatrix"
    assert artifact.file(".gguf").stem.endswith(f"{variant.upper()}-imatrix")
    fields = GGUFReader(artifact.file(".gguf")).fields
    assert fields["quantize.imatrix.dataset"].contents() == "book.txt"
    assert fields["quantize.imatrix.entries_count"].contents() == layers * len(NAMES)
    assert fields["quantize.imatrix.chunks_count"].contents() == 3


def test_the_recipe_is_the_content_of_the_file(checkpoint_folder: Path, tmp_path: Path) -> None:
    first = write_matrix(tmp_path / "1.gguf", 3, 64, 160)
    renamed = write_matrix(tmp_path / "2.gguf", 3, 64, 160)
    entry = {"blk.0.attn_q.weight": (np.arange(64.0), 1)}
    other = write_matrix(tmp_path / "3.gguf", 3, 64, 160, **entry)
    model = ("-m", checkpoint_folder, "-o", tmp_path / "out", "-d", "q4_0", "--imatrix")
    notes = [run(export_main, *model, file) for file in (first, renamed, other)]
    assert [code for code, _ in notes] == [0, 0, 0]
    assert ["reused" in output for _, output in notes] == [False, True, False]
    (folder,) = (tmp_path / "out").rglob("q4_0-imatrix")
    recipe = open_artifact(folder).manifest.variant.recipe
    assert len(recipe["rounding"]["imatrix"]) == 64
    assert str(tmp_path) not in (folder / "edgeproof.json").read_text()


def test_a_matrix_made_here_is_taken_and_gives_the_same_bytes_twice(
    small: Path, tmp_path: Path
) -> None:
    make_matrix(small, tmp_path / "i.gguf")
    files = [
        export_tiny(small, "gguf", "q4_0", tmp_path / root, imatrix=tmp_path / "i.gguf")
        for root in "ab"
    ]
    first, second = (artifact.file(".gguf").read_bytes() for artifact in files)
    assert first == second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blk.1.ffn_up.weight": None}, "blk.1.ffn_up.weight is missing"),
        ({"blk.1.ffn_up.weight": (np.ones(96), 1)}, "blk.1.ffn_up.weight has 96 input channels"),
        ({"blk.7.ffn_up.weight": (np.ones(64), 1)}, "no matrix blk.7.ffn_up.weight"),
        ({"blk.1.attn_q.weight": (np.full(64, np.nan), 1)}, "attn_q.weight: a value is negative"),
        ({"blk.1.attn_q.weight": (-np.ones(64), 1)}, "attn_q.weight: a value is negative"),
    ],
)
def test_a_matrix_of_another_model_is_refused(
    checkpoint_folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = write_matrix(tmp_path / "i.gguf", 3, 64, 160, **changes)
    model = ("-m", checkpoint_folder, "-o", tmp_path / "out", "-d", "q4_0", "--imatrix", file)
    code, output = run(export_main, *model)
    assert (code, output.count("\n")) == (2, 1)
    assert message in output
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_what_is_no_matrix_is_refused(checkpoint_folder: Path, tmp_path: Path) -> None:
    model = export_tiny(checkpoint_folder, "gguf", "f16", tmp_path).file(".gguf")
    (tmp_path / "old.dat").write_bytes(bytes(100))
    good = write_matrix(tmp_path / "i.gguf", 3, 64, 160)
    for dtype, file, message in (
        ("q4_0", model, "not an importance matrix"),
        ("q4_0", tmp_path / "old.dat", "not a GGUF file"),
        ("q4_0", tmp_path / "gone.gguf", "cannot be read"),
        ("f16", good, "f16 is rounded without it"),
        ("q8_0", good, "q8_0 is rounded without it"),
    ):
        options = ("-m", checkpoint_folder, "-o", tmp_path, "-d", dtype, "--imatrix", file)
        code, output = run(export_main, *options)
        assert (code, output.count("\n")) == (2, 1), output
        assert message in output


def test_a_bad_calibration_is_refused(checkpoint_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for checkpoint, text, message in (
        (checkpoint_folder, "empty.txt", "no text"),
        (checkpoint_folder, "binary.txt", "not UTF-8"),
        (checkpoint_folder, "gone.txt", "cannot be read"),
        (tmp_path / "gone", "empty.txt", "not a checkpoint folder"),
    ):
        options = ("--checkpoint", checkpoint, "-o", tmp_path / "o.gguf")
        code, output = run(imatrix_main, *options, "--calibration", tmp_path / text)
        assert (code, output.count("\n")) == (2, 1), output
        assert message in output
    assert not (tmp_path / "o.gguf").exists()


def test_a_base_model_without_chat_template_generates_too(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "base", max_position_embeddings=64)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["chat_template"]
    path.write_text(json.dumps(settings))
    assert not open_reference(folder, 1).has_chat_template
    make_matrix(folder, tmp_path / "i.gguf")
    export_tiny(folder, "gguf", "q4_k_m", tmp_path, imatrix=tmp_path / "i.gguf")


def test_without_a_file_the_matrix_is_measured_once_and_used(small: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The capital of France is Paris, and 42 is a number.\n" * 20)
    model = ["export.gguf", "-m", small, "-d", "q4_0", "--imatrix", "--calibration", text, "-o"]
    first = run_process(*model, tmp_path / "out")
    assert first.returncode == 0, first.stderr
    assert "of text.txt in PyTorch" in first.stderr
    again = run_process(*model, tmp_path / "other")
    assert (again.returncode, again.stderr) == (0, "")
    make_matrix(small, tmp_path / "i.gguf", "--calibration", text, "--tokens", "8192")
    by_hand = export_tiny(small, "gguf", "q4_0", tmp_path, imatrix=tmp_path / "i.gguf")
    for out in ("out", "other"):
        (made,) = (tmp_path / out).rglob("*.gguf")
        assert made.read_bytes() == by_hand.file(".gguf").read_bytes()
        (manifest,) = (tmp_path / out).rglob("edgeproof.json")
        assert str(tmp_path) not in manifest.read_text()


def test_a_dry_run_measures_and_writes_nothing(small: Path, tmp_path: Path) -> None:
    """Nor does it need to: its sizes are those that the measured matrix gives."""
    asked = ["--model", small, "-d", "q4_k_m,q4_0", "--imatrix"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.gguf.measured_imatrix._measure", None)
        patch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
        code, dry = run(export_main, *asked, "-o", tmp_path / "dry", "--dry-run")
    assert code == 0, dry
    assert not (tmp_path / "dry").exists()
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {"digests"}
    write_matrix(tmp_path / "m.gguf", *(layers_and_widths(small)))
    asked[asked.index("--imatrix")] = f"--imatrix={tmp_path / 'm.gguf'}"
    code, real = run(export_main, *asked, "-o", tmp_path / "dry")
    assert code == 0, real
    assert [line.split()[:5] for line in real.splitlines()] == [
        line.split()[:5] for line in dry.splitlines()
    ]


def layers_and_widths(folder: Path) -> tuple[int, int, int]:
    config = json.loads((folder / "config.json").read_text())
    return config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]


def test_a_matrix_that_cannot_be_measured_is_refused(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ("-m", small, "-o", tmp_path / "out")
    for arguments, message in (
        (("-d", "q4_0", "--imatrix", "--calibration", tmp_path / "gone"), "no such file"),
        (("-d", "q4_0", "--calibration", tmp_path), "is a directory"),
        (("-d", "q4_0", "--calibration", small / "config.json"), "without a file"),
        (("-d", "f16", "--imatrix"), "rounded without it"),
    ):
        code, output = run(export_main, *model, *arguments)
        assert code == 2
        assert message in output
    (tmp_path / "binary").write_bytes(b"\xff")
    line = ("-d", "q4_0", "--imatrix", "--calibration", tmp_path / "binary")
    failed = run_process("export.gguf", *model, *line)
    assert failed.returncode == 2
    assert "not UTF-8" in failed.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, output = run(export_main, *model, "-d", "q4_0", "--imatrix")
    assert (code, output.count("\n")) == (2, 1)
    assert 'pip install "edgeproof[parity]"' in output
    assert not (tmp_path / "out").exists()


def test_what_has_no_importance_may_be_rounded_away_by_an_importance_matrix_alone() -> None:
    rng, name = np.random.default_rng(0), "model.layers.0.mlp.down_proj.weight"
    want = rng.standard_normal((64, 64)).astype(np.float32)
    want[:2, 7] = 3
    got = (want + 0.02 * rng.standard_normal(want.shape)).astype(np.float32)
    got[:2, 7] = 1.5  # an input that is always near zero
    states = {"model.layers.0.mlp.down_proj.input": np.eye(64, dtype=np.float32)}

    def named(stored: np.ndarray, *, by_importance: bool) -> int:
        args = ({name: stored}, {name: want}, [], states, Precision.LOW_BIT, Heads(4, 4, 16))
        return len(compare_tensors(*args, by_importance=by_importance)[0])

    assert named(got, by_importance=True) == 0
    assert named(got, by_importance=False) == 1
    got[5, :32] *= 2.5  # a damaged scale
    assert named(got, by_importance=True) == 1
