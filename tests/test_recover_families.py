"""Recovery of every family: what folds away does, nothing else changes, and 4 bits lose less."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtimes.pytorch import open_reference
from runtimes.recover.stages import Stages
from runtimes.weights.fused import parts
from tests.recovering import (
    LEVELS,
    find_at_once,
    lighten,
    make_small,
    on_grid,
    recovered,
    values,
)
from tests.test_recovered_export import differences, export
from tests.tiny import FAMILIES, GEMMA3, OTHERS, PHI3, write_weights

pytestmark = pytest.mark.numbers

ALIKE = {"tied", "untied", "wide heads", "biases", "mistral", "qwen2", "qwen3"}  # but for rope
# The context is the same for all: of Phi-3 that is the text within which it rotates one way.
EVERY: dict[str, dict[str, Any]] = {
    **{name: changes for name, changes in FAMILIES.items() if name in ALIKE},
    **OTHERS,
    "gemma3": GEMMA3,
    "phi3": {**PHI3, "max_position_embeddings": 130, "original_max_position_embeddings": 65},
}


def make_undecided(folder: Path, name: str) -> Path:
    """A tiny model whose next token is open: else nothing that is lost would show.

    Its embedding is small, and so are logits where it is tied; its norms multiply with about 1.
    """
    make_small(folder, **EVERY[name])
    found = values(folder)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    for key, array in found.items():
        if "embed" in key:
            found[key] = (array * np.float32(0.2)).astype(array.dtype)
        elif "norm" in key and name == "gemma3":
            found[key] = array - np.float32(1)
    write_weights(folder, found, EVERY[name].get("shards", 1))
    return folder


@pytest.mark.parametrize("name", EVERY)
def test_every_family_keeps_its_function_and_loses_less_than_by_plain_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Folding alone changes nothing; all of the recovery lies on its grid and is nearer."""
    model = make_undecided(tmp_path / "model", name)
    record = recovered(model, tmp_path / "out", "--format", "any")
    before, found = values(model), values(tmp_path / "out")
    assert {key: array.shape for key, array in found.items()} == {
        key: array.shape for key, array in before.items()
    }
    matrices = {key for key, array in found.items() if array.ndim == 2}
    assert {part for key in matrices for part in parts(key)} == record.grids.keys()
    assert all(on_grid(found[key], LEVELS["q4"]) for key in matrices)
    offset = np.float32(name == "gemma3")
    for key in (key for key in found if "norm" in key):
        assert np.array_equal(found[key] + offset, (found[key] + offset).astype(np.float16)), key

    class Unrounded:
        def __init__(self, values: torch.Tensor) -> None:
            self.values = values

    def unrounded(self: Stages, name: str, grid: str, folded: Any, *check: Any) -> Unrounded:
        return Unrounded(folded.weights[name])

    monkeypatch.setattr(Stages, "rounded", unrounded)
    recovered(model, tmp_path / "folded", "--format", "any")
    folded = values(tmp_path / "folded")
    assert any((before[key] != folded[key]).any() for key in matrices)
    plain = {key: nearest(array) if key in matrices else array for key, array in before.items()}
    shutil.copytree(model, tmp_path / "plain")
    for path in (tmp_path / "plain").glob("*.safetensors*"):
        path.unlink()
    write_weights(tmp_path / "plain", plain)

    original = open_reference(model, 1)
    rows = original.sample([1], 12, 60, seed=5)
    wanted = [original.logits(ids) for ids in rows]
    lost = {}
    for folder in ("out", "plain", "folded"):
        runtime = open_reference(tmp_path / folder, 1)
        own = [runtime.logits(ids) for ids in rows]
        lost[folder] = float(np.mean([kl(*pair) for pair in zip(wanted, own, strict=True)]))
        if folder == "folded":
            # Norms of queries and keys, and a tied model's last one, are rounded to 11 bits.
            apart = max(np.abs(a - b).max() for a, b in zip(wanted, own, strict=True))
            assert apart < 4e-3 * max(np.abs(a).max() for a in wanted)
    assert lost["out"] < lost["plain"]


def nearest(weights: np.ndarray) -> np.ndarray:
    """Blocks by llama.cpp's rule for Q4_0: the value of largest magnitude becomes level −8."""
    blocks = weights.astype(np.float32).reshape(-1, 32)
    peaks = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    scales = (peaks / -8).astype(np.float16).astype(np.float32)
    levels = np.clip(np.rint(blocks / np.where(scales == 0, 1, scales)), -8, 7)
    return np.asarray((levels * scales).reshape(weights.shape))


def kl(first: np.ndarray, second: np.ndarray) -> float:
    """Mean KL of logits [T, V] in nats."""
    ours, theirs = (torch.from_numpy(part).log_softmax(-1) for part in (first, second))
    return float((ours.exp() * (ours - theirs)).sum(-1).mean())


def test_what_gguf_has_in_one_tensor_lies_on_one_grid(tmp_path: Path) -> None:
    """And ONNX, which has them apart, mixes them as it likes."""
    model = make_small(tmp_path / "model", **EVERY["phi3"])
    for form, dtype, bits in (("gguf", "auto", "5.4"), ("onnx", "q4", "6.6")):
        record = recovered(model, tmp_path / form, "--format", form, "--bits", bits)
        held = [parts(key) for key, array in values(tmp_path / form).items() if array.ndim == 2]
        several = [names for names in held if len({record.grids[name] for name in names}) > 1]
        assert bool(several) is (form == "onnx")
        assert len(set(record.grids.values())) > 1
        artifact, _ = export(form, tmp_path / form, tmp_path / f"{form}-files", "-d", dtype)
        assert differences(artifact, tmp_path / form) == []


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    lighten(monkeypatch)
    find_at_once(monkeypatch)
