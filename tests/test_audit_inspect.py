"""What an audit finds in files without running them, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeproof.artifact import MANIFEST, Artifact, redescribed
from edgeproof.artifact.foreign import described
from edgeproof.errors import InputError
from runtimes.audit.__main__ import main as audit_main
from runtimes.audit.description import against, describe
from runtimes.audit.labels import label_of, misnomer
from runtimes.audit.subjects import subjects
from runtimes.footprint import main as footprint_main
from runtimes.formats import dequantise
from runtimes.parity.localise.contents import told_otherwise
from tests import tiny_gguf
from tests.exported import export_tiny

VARIANTS = (
    ("gguf", "f32"), ("gguf", "f16"), ("gguf", "q8_0"), ("gguf", "q4_0"), ("gguf", "q4_k_m"),
    ("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "q8"), ("onnx", "int8"), ("onnx", "q4"),
    ("onnx", "q4f16"), ("onnx", "bnb4"),
    ("mlc", "q4f16_1"), ("mlc", "q0f16"), ("mlc", "q0f32"),
    ("mlx", "f32"), ("mlx", "f16"), ("mlx", "bf16"),
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("model")).checkpoint


def stripped(model: Path, form: str, variant: str, root: Path) -> Artifact:
    """Our own export, whose manifest is in memory only."""
    artifact = export_tiny(model, form, variant, root)
    (artifact.path / MANIFEST).unlink()
    return artifact


@pytest.mark.parametrize(("form", "variant"), VARIANTS)
def test_the_bytes_say_what_the_manifest_said(
    model: Path, form: str, variant: str, tmp_path: Path
) -> None:
    own = stripped(model, form, variant, tmp_path)
    found, *_ = subjects([own.path])
    artifact = describe(found, against(model, "tiny")).artifact
    said, read = own.manifest, artifact.manifest
    assert read.variant.precision is said.variant.precision
    assert read.variant.facts == said.variant.facts
    assert read.effective_bpw == pytest.approx(said.effective_bpw, rel=0.02)
    assert {item.path for item in read.outputs} <= {item.path for item in said.outputs}
    assert read.model.inputs == said.model.inputs  # so that captures are found again
    assert not [text for text in found.warnings if "mislabelled" in text]
    assert artifact.foreign is not None
    assert redescribed(described(artifact, artifact.foreign)) == artifact


def test_what_was_found_is_told_to_the_process_that_measures(model: Path, tmp_path: Path) -> None:
    blob = tiny_gguf.write(tmp_path / "a", "Q8_0").path.rename(tmp_path / "sha256-0123")
    (found,) = subjects([blob])
    artifact = describe(found, against(model, "tiny")).artifact
    assert artifact.foreign is not None
    told = described(artifact, artifact.foreign)
    arguments = [str(artifact.path), "--described", "--brief", "--threads", "1"]
    done = CliRunner().invoke(footprint_main, arguments, input=told)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["decode_tokens"] == 2
    done = CliRunner().invoke(footprint_main, arguments, input="{}")
    assert done.exit_code == 2
    assert "damaged" in done.output


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("page.gguf", b"<!DOCTYPE html><html>", "a web page"),
        ("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        ("empty.gguf", b"", "empty"),
        ("other.gguf", b"PK\3\4", "no GGUF file"),
        ("notes", b"hello", "nothing that can be audited"),
        ("page.onnx", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_what_is_no_model_is_one_line(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, said)


def test_a_cut_off_file_is_one_line(model: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.write(tmp_path / "whole").path
    part = tmp_path / "part.gguf"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    refused(part, "beyond the file's end")


def test_a_missing_split_is_one_line(tmp_path: Path) -> None:
    whole = tiny_gguf.write(tmp_path / "whole").path
    split = whole.rename(tmp_path / "m-00001-of-00002.gguf")
    refused(split, "m-00002-of-00002.gguf: missing")


def test_a_folder_of_nothing_is_one_line(tmp_path: Path) -> None:
    refused(tmp_path, "holds nothing")
    refused(tmp_path / "absent", "no such file or folder")


def refused(path: Path, said: str) -> None:
    done = CliRunner().invoke(audit_main, [str(path), "--inspect"])
    assert done.exit_code == 2
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_broken_external_data_is_named(model: Path, tmp_path: Path) -> None:
    own = stripped(model, "onnx", "fp32", tmp_path).path
    (data,) = (own / "onnx").glob("*_data")
    data.write_bytes(data.read_bytes()[:-8])
    assert all("is cut off" in (found.broken or "") for found in subjects([own]))
    data.unlink()
    found, *_ = subjects([own])
    assert f"{data.name}, which is missing" in (found.broken or "")


def test_files_that_are_links_as_in_the_hub_s_cache_are_read(model: Path, tmp_path: Path) -> None:
    own = stripped(model, "onnx", "fp32", tmp_path).path
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(item for item in own.rglob("*") if item.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    for found in subjects([own]):
        made = describe(found, against(model, "tiny"))
        assert (found.broken, made.unread) == (None, None)
        assert dequantise(made.artifact)["model.layers.0.self_attn.q_proj.weight"].any()


def test_a_loader_that_asks_for_other_names_is_told_of(model: Path, tmp_path: Path) -> None:
    own = stripped(model, "onnx", "fp32", tmp_path).path
    config = json.loads((own / "config.json").read_text())
    del config["transformers.js_config"]
    (own / "config.json").write_text(json.dumps(config))
    found = subjects([own / "onnx" / "model.onnx"])
    assert "transformers.js asks for no external data" in found[0].warnings[0]


def test_an_old_index_of_mlc_is_read(model: Path, tmp_path: Path) -> None:
    own = stripped(model, "mlc", "q4f16_1", tmp_path).path
    (own / "tensor-cache.json").unlink()
    (found,) = subjects([own])
    assert "no tensor-cache.json" in found.warnings[-1]
    assert describe(found, against(model, "tiny")).unread is None


def test_inspecting_writes_what_it_says(model: Path, tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "a", "Q4_K").path
    path = Path(shutil.copy(path, tmp_path / "tiny-Q8_0.gguf"))
    target = tmp_path / "audit.json"
    done = CliRunner().invoke(audit_main, [str(path), "--inspect", "--json", str(target)])
    assert done.exit_code == 0, done.output
    assert "called Q8_0" in done.output
    (said,) = json.loads(target.read_text())["files"]
    assert said["precision"] == "4-bit"
    assert said["warnings"][0].startswith("mislabelled: called Q8_0")


def test_mlc_is_of_the_scheme_that_it_says_itself(model: Path, tmp_path: Path) -> None:
    (found,) = subjects([stripped(model, "mlc", "q4f16_1", tmp_path).path])
    notes = told_otherwise(describe(found, against(model, "tiny")).artifact, model)
    assert not any("quantization" in note for note in notes)


@pytest.mark.parametrize(
    ("file", "stated", "label"),
    [
        ("SmolLM2-135M-Instruct-Q4_K_M.gguf", "Q8_0", "Q4_K_M"),
        ("model-f16.gguf", None, "F16"),
        ("model.fp16.gguf", None, "F16"),
        ("gemma-UD-IQ2_XXS.gguf", None, "IQ2_XXS"),
        ("sha256-0123", "BF16", "BF16"),
        ("Q4U-notes.gguf", None, None),
    ],
)
def test_a_label_is_the_file_name_s_first(file: str, stated: str | None, label: str | None) -> None:
    assert label_of(file, stated) == label


def test_a_mixture_and_a_fallback_are_what_their_label_says() -> None:
    assert misnomer("Q4_K_M", {"Q4_K": 80, "Q6_K": 20}) is None
    assert misnomer("Q4_K_M", {"Q5_0": 80, "Q8_0": 20}, [576]) is None
    assert misnomer("Q4_K_M", {"Q5_0": 80, "Q8_0": 20}, [512]) is not None
    assert misnomer("IQ3_M", {"IQ3_S": 9, "Q4_K": 1}) is None
    assert misnomer("UNHEARD_OF", {"F16": 1}) is None


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for maker in ("a", "b"):
        tiny_gguf.write(tmp_path / maker)
    names = [item.name for item in subjects([tmp_path / "a", tmp_path / "b"])]
    assert names == ["a/tiny.gguf", "b/tiny.gguf"]


def test_a_checkpoint_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="safetensors"):
        against(tmp_path, "nothing")
