"""The instrument's figures beside a computation that shares no code with it.

Here logits come from llama-cpp-python's and transformers' own high-level interfaces, and every
definition is written out in float64, with exact sums (`math.fsum`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from runtimes.parity.reference import Reference, load_reference
from runtimes.parity.replay import COMPARED_ROWS
from runtimes.parity.run import Request, recorded_inputs, run_parity
from runtimes.parity.suite import Budget, Suite, built_in
from runtimes.registry import open_reference
from tests.exported import export_tiny
from tests.tiny import make_checkpoint

GGML_TYPE_F32 = 0
TEMPERATURE, TOP_P = 0.2, 0.9


def log_probabilities(logits: np.ndarray, temperature: float = 1.0) -> list[float]:
    values = [float(value) / temperature for value in logits]
    peak = max(values)
    total = math.log(math.fsum(math.exp(value - peak) for value in values))
    return [value - peak - total for value in values]


def divergence(p: list[float], q: list[float]) -> float:
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))


def sampled(logits: np.ndarray) -> dict[int, float]:
    """Token → probability when sampling at temperature 0.2 with top-p 0.9."""
    chances = [math.exp(value) for value in log_probabilities(logits, TEMPERATURE)]
    kept: dict[int, float] = {}
    for token in sorted(range(len(chances)), key=lambda token: (-chances[token], token)):
        if math.fsum(kept.values()) >= TOP_P:
            break
        kept[token] = chances[token]
    total = math.fsum(kept.values())
    return {token: chance / total for token, chance in kept.items()}


@dataclass
class Figures:
    kl: list[float]
    same: list[bool]
    accepted: list[float]
    surprise: list[float]

    def add(self, ids: tuple[int, ...], reference: np.ndarray, export: np.ndarray) -> None:
        for position, (ours, theirs) in enumerate(zip(reference, export, strict=True)):
            p, q = log_probabilities(ours), log_probabilities(theirs)
            self.kl.append(divergence(p, q))
            self.same.append(p.index(max(p)) == q.index(max(q)))
            a, b = sampled(ours), sampled(theirs)
            self.accepted.append(math.fsum(min(a[t], b[t]) for t in a if t in b))
            if position + 1 < len(ids):
                self.surprise.append(p[ids[position + 1]] - q[ids[position + 1]])


def llama_logits(model: object, ids: tuple[int, ...]) -> np.ndarray:
    model.reset()  # type: ignore[attr-defined]
    model.eval(list(ids))  # type: ignore[attr-defined]
    return np.array(model.scores[: len(ids)], np.float64)  # type: ignore[attr-defined]


def blocks(reference: Reference, index: int) -> np.ndarray:
    """The logits as they are compared: a product of more rows may be rounded otherwise."""
    hidden = reference.hidden[index]
    starts = range(0, len(hidden), COMPARED_ROWS)
    return np.concatenate([hidden[s : s + COMPARED_ROWS] @ reference.head.T for s in starts])


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def test_kl_top_1_acceptance_and_perplexity_of_a_gguf_agree_with_a_separate_computation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llama_cpp
    import torch
    from transformers import AutoModelForCausalLM

    folder = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(folder, "gguf", "q8_0", tmp_path / "out")
    suite = Suite("some", built_in(Budget.FAST).prompts[:12:4])
    _, (entry,) = run_parity(
        folder, suite, [Request(artifact.path, False)], 1, {}, footprints=False
    )
    assert entry.measurement is not None
    estimates = entry.measurement.estimates

    inputs = recorded_inputs(folder, [artifact])
    reference = load_reference(open_reference(folder, 1), suite, inputs, lambda: None)
    export = llama_cpp.Llama(
        str(artifact.file(".gguf")), n_ctx=256, n_batch=512, n_threads=1, logits_all=True,
        type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, verbose=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    exact, plain = (Figures([], [], [], []) for _ in range(2))
    for index, document in enumerate(reference.documents):
        theirs = llama_logits(export, document.ids)
        exact.add(document.ids, blocks(reference, index), theirs)
        with torch.inference_mode():
            original = model(torch.tensor([document.ids])).logits[0].numpy()
        plain.add(document.ids, original, theirs)
    export.close()

    def assert_agreement(figures: Figures, tolerance: float) -> None:
        expected = {
            "mean_kl": mean(figures.kl),
            "top1": mean([float(same) for same in figures.same]),
            "acceptance": mean(figures.accepted),
            "perplexity_ratio": math.exp(mean(figures.surprise)),
        }
        for metric, value in expected.items():
            assert estimates[metric].value == pytest.approx(value, rel=tolerance), metric

    assert entry.measurement.positions == len(exact.kl)
    assert estimates["mean_kl"].value > 1e-3, "8 bits cost this model something"
    assert_agreement(exact, 1e-9)
    assert_agreement(plain, 1e-4)  # the head is multiplied in another order, in float32
