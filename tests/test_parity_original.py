"""Exports of a recovered checkpoint: stored values are its own, the function is the original's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeproof.errors import InputError
from edgeproof.recovery import CalibrationText, Original, Recovery, checkpoint_digest
from edgeproof.verdicts import Verdict
from runtimes.parity import tokenizer
from runtimes.parity.original import original_of, recovered_from
from runtimes.parity.result import HeldOut
from runtimes.parity.run import Conditions, Extent, ParityRun, Request, run_parity
from runtimes.parity.suite import Prompt, Suite
from tests.exported import export_tiny
from tests.tiny import make_checkpoint, write_weights

LEVELS = {"q8": 127, "q4": 7}
BLOCK = 32
TEXT = "The ferry left at noon with three goats and a piano. "
SUITE = Suite("some", tuple(Prompt(f"t{n}", "text", TEXT * n) for n in (1, 2, 3)))


def make_pair(folder: Path, grid: str = "q8") -> tuple[Path, Path]:
    """A tiny checkpoint, and one on a grid that stands for what recovery made of it."""
    levels = LEVELS[grid]
    original = make_checkpoint(folder / "original", dtype="F32")
    recovered = folder / "recovered"
    shutil.copytree(original, recovered)
    tensors, grids = load_file(original / "model.safetensors"), {}
    for name, values in tensors.items():
        if values.ndim == 2:
            blocks = values.reshape(-1, BLOCK)
            scale = np.abs(blocks).max(1, keepdims=True) / levels
            scale = scale.astype(np.float16).astype(np.float32)
            codes = np.clip(np.rint(blocks / np.where(scale, scale, 1)), -levels, levels)
            tensors[name] = (codes * scale).reshape(values.shape)
            grids[name] = grid
        else:
            tensors[name] = values.astype(np.float16).astype(np.float32)
    write_weights(recovered, tensors)
    text = CalibrationText("1" * 64, 4096)
    made_from = Original("tiny", checkpoint_digest(original))
    Recovery(made_from, grids, {"made": "for a test"}, text, {}).save(recovered)
    return original, recovered


@pytest.mark.parametrize(
    ("held", "known"),
    [
        (
            {"tokens": 6144, "figures": {"mean_kl": [0.04, 0.03, 0.05]}},
            HeldOut(6144, 0.04, 0.03, 0.05),
        ),
        ({"tokens": 6144, "figures": {"mean_kl": [0.04]}}, None),
        ({"tokens": "many", "figures": {"mean_kl": [0.04, 0.03, 0.05]}}, None),
        ([], None),
    ],
)
def test_what_a_recovery_knows_of_text_that_it_did_not_see_is_told(
    tmp_path: Path, held: object, known: HeldOut | None
) -> None:
    made_from = Original("tiny", "0" * 64)
    text = CalibrationText("1" * 64, 4096)
    Recovery(made_from, {}, {"held_out": held}, text, {}).save(tmp_path)
    found = recovered_from(tmp_path, ())
    assert found is not None
    assert found.held_out == known


def test_the_function_is_compared_with_the_original_and_the_weights_with_the_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "COUNT", 10)
    original, recovered = make_pair(tmp_path)
    made = export_tiny(recovered, "gguf", "auto", tmp_path / "out")
    conditions, found = Conditions(SUITE, 1, {}, Extent(footprints=False)), {}
    for name, compared in (("itself", recovered), ("original", original)):
        requests = [Request(made.path, False)]
        facts, (entry,) = run_parity(ParityRun(recovered, requests, conditions, compared))
        assert entry.measurement is not None
        assert entry.judgement.verdict is not Verdict.FAIL, entry.judgement.reasons
        assert (facts.original is None) == (name == "itself")
        found[name] = entry.measurement
    assert found["itself"].exact_weights
    assert not found["original"].exact_weights
    weights = found["original"].weights
    assert weights is not None
    assert weights["mean_kl"].value > 0
    assert found["original"].estimates["mean_kl"].value > found["itself"].estimates["mean_kl"].value


def test_four_bits_of_a_recovery_lose_the_same_in_mlx_as_in_llama_cpp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their weights, which both files have; what the runtimes add is their own."""
    for package in ("llama_cpp", "mlx_lm"):
        pytest.importorskip(package)
    monkeypatch.setattr(tokenizer, "COUNT", 10)
    original, recovered = make_pair(tmp_path, "q4")
    made = [export_tiny(recovered, form, "auto", tmp_path / "out") for form in ("gguf", "mlx")]
    requests = [Request(artifact.path, False) for artifact in made]
    conditions = Conditions(SUITE, 1, {}, Extent(footprints=False))
    _, entries = run_parity(ParityRun(recovered, requests, conditions, original))
    gguf, mlx = (entry.measurement for entry in entries)
    assert gguf is not None
    assert mlx is not None
    assert gguf.weights is not None
    assert gguf.weights["mean_kl"].value > 0
    assert mlx.weights == gguf.weights


def test_the_original_is_the_one_that_the_recovery_names(tmp_path: Path) -> None:
    original, recovered = make_pair(tmp_path)
    assert original_of(original, None) == original
    assert original_of(recovered, str(original)) == original
    other = make_checkpoint(tmp_path / "other", seed=9)
    for given, fault in (
        (None, "say where that is, --original DIR"),
        (str(other), "not what .* was recovered from"),
        (str(tmp_path / "gone"), "gone"),
    ):
        with pytest.raises(InputError, match=fault):
            original_of(recovered, given)
    with pytest.raises(InputError, match="no recovered checkpoint"):
        original_of(original, str(original))
