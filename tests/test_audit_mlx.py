"""MLX folders of any maker: what their bytes say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from edgeproof.artifact import MANIFEST, Artifact
from edgeproof.errors import InputError
from runtimes.audit.__main__ import main
from runtimes.audit.description import against, describe
from runtimes.audit.mlx import is_folder
from runtimes.audit.subjects import subjects
from runtimes.formats import dequantise
from tests.exported import export_tiny
from tests.recovered import make_recovered, mixed
from tests.tiny import change_json, make_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "checkpoint")


def exported(checkpoint: Path, variant: str, root: Path, **options: str) -> Artifact:
    artifact = export_tiny(checkpoint, "mlx", variant, root, **options)
    (artifact.path / MANIFEST).unlink()
    return artifact


@pytest.mark.parametrize(
    ("variant", "precision"), [("q8", "8-bit"), ("q6", "4-bit"), ("q4", "4-bit"), ("q3", "4-bit")]
)
def test_bits_follow_from_words_and_scales(
    checkpoint: Path, tmp_path: Path, variant: str, precision: str
) -> None:
    own = exported(checkpoint, variant, tmp_path, group_size="32", activations="float16")
    (found,) = subjects([own.path])
    assert (found.format, found.precision.value) == ("mlx", precision)
    assert found.facts.activations == "float16"
    assert found.label == f"{variant[1:]}-bit"
    assert found.says["quantization"] == f"{variant[1:]} bits in groups of 32, affine"
    assert found.bits == pytest.approx(own.manifest.effective_bpw, rel=1e-3)
    assert (found.warnings, found.broken) == ((), None)
    described = describe(found, against(checkpoint, "tiny"))
    assert described.unread is None
    name = "model.layers.0.mlp.up_proj.weight"
    values = load_file(checkpoint / "model.safetensors")[name]
    step = np.ptp(values) / (2 ** int(variant[1:]) - 1)
    assert np.abs(dequantise(described.artifact)[name] - values).max() < step


def test_the_weights_come_first_whose_hash_a_badge_has(checkpoint: Path, tmp_path: Path) -> None:
    own = exported(checkpoint, "q4", tmp_path, group_size="32")
    (own.path / "README.md").write_text("# a card")
    (found,) = subjects([own.path])
    assert found.files[0] == "model.safetensors"
    assert "README.md" in found.files


def test_a_mixture_says_how_many_layers_are_otherwise(tmp_path: Path) -> None:
    own = exported(make_recovered(tmp_path / "checkpoint", mixed), "auto", tmp_path)
    (found,) = subjects([own.path])
    assert found.shares.keys() == {"8-bit", "5-bit", "4-bit", "float16"}
    assert "layers otherwise" in found.says["quantization"]


def test_a_checkpoint_of_transformers_is_none(checkpoint: Path) -> None:
    assert not is_folder(checkpoint)
    with pytest.raises(InputError, match="holds nothing that can be audited"):
        subjects([checkpoint])


def test_what_is_wrong_is_told(checkpoint: Path, tmp_path: Path) -> None:
    own = exported(checkpoint, "q8", tmp_path, group_size="32")
    config = own.path / "config.json"
    change_json(config, quantization={"group_size": 32, "bits": 4})
    (own.path / "tokenizer.json").unlink()
    (found,) = subjects([own.path])
    assert found.warnings == (
        "no tokenizer.json", "mislabelled: called 4-bit, but most weights are 8-bit",
    )  # fmt: skip
    change_json(config, model_file="evil.py")
    (found,) = subjects([own.path])
    assert found.broken is not None
    assert "never run" in found.broken


def test_a_runtime_that_does_not_execute_it_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    own = exported(checkpoint, "q4", tmp_path, group_size="32")
    asked = [str(own.path), "--against", str(checkpoint), "--runtime", "openvino", "--no-html"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    assert done.output.splitlines()[-1].endswith("openvino does not execute mlx")


def test_a_file_that_is_cut_off_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    own = exported(checkpoint, "q8", tmp_path)
    path = own.path / "model.safetensors"
    whole = path.read_bytes()
    for data in (whole[:-1], whole[: len(whole) // 2], whole[:50], b""):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"model\.safetensors") as caught:
            subjects([own.path])
        assert "\n" not in str(caught.value)
