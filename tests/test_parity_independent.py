"""The instrument's figures beside a computation that shares no code with it.

Here logits come from llama-cpp-python's and transformers' own high-level interfaces, and every
definition is written out in float64, with exact sums (`math.fsum`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from runtimes.parity.divergence import PerPosition, PositionMetrics, compare
from runtimes.parity.inputs import recorded_inputs
from runtimes.parity.reference import load_reference
from runtimes.parity.run import Conditions, Extent, ParityRun, Request, run_parity
from runtimes.parity.suite import Budget, Suite, built_in
from runtimes.registry import open_reference
from tests.exported import export_tiny
from tests.tiny import make_checkpoint
from tests.tolerance import REORDERED_FLOAT64

pytestmark = pytest.mark.numbers

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
    read: set[tuple[int, ...]] = field(default_factory=set)

    def add(self, ids: tuple[int, ...], reference: np.ndarray, export: np.ndarray) -> None:
        for position, (ours, theirs) in enumerate(zip(reference, export, strict=True)):
            before = ids[: position + 1]
            if before in self.read:
                continue  # another document begins so too, and has this position already
            self.read.add(before)
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


@dataclass
class Seen:
    """Copies of the logits that the instrument compares: the reference's and the export's rows."""

    blocks: list[tuple[np.ndarray, np.ndarray]]

    def compare(
        self,
        reference: np.ndarray,
        export: np.ndarray,
        ids: Sequence[int],
        further: Mapping[str, PerPosition] | None = None,
    ) -> PositionMetrics:
        self.blocks.append((reference.copy(), export.copy()))
        return compare(reference, export, ids, further)

    def take(self, export: np.ndarray) -> np.ndarray:
        """The reference's logits that were compared with exactly these of an export, in order."""
        taken: list[np.ndarray] = []
        rows = 0
        for ours, theirs in self.blocks:
            if np.array_equal(theirs, export[rows : rows + len(theirs)]):
                taken.append(ours)
                rows += len(theirs)
        assert rows == len(export), "the runtime's logits are not those of its own interface"
        return np.concatenate(taken)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def test_kl_top_1_acceptance_and_perplexity_of_a_gguf_agree_with_a_separate_computation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llama_cpp
    import torch
    from transformers import AutoModelForCausalLM

    seen = Seen([])
    monkeypatch.setattr("runtimes.parity.replay.compare", seen.compare)
    folder = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(folder, "gguf", "q8_0", tmp_path / "out")
    chats = [prompt for prompt in built_in(Budget.FAST).prompts if prompt.kind == "chat"]
    suite = Suite("some", tuple(chats[:9:4]))
    conditions = Conditions(suite, 1, {}, Extent(footprints=False))
    _, (entry,) = run_parity(ParityRun(folder, [Request(artifact.path, False)], conditions))
    assert entry.measurement is not None
    estimates = entry.measurement.estimates

    inputs = recorded_inputs(folder, [artifact])
    reference = load_reference(open_reference(folder, 1), suite, inputs, lambda: None)
    export = llama_cpp.Llama(
        str(artifact.file(".gguf")), n_ctx=256, n_batch=512, n_threads=1, logits_all=True,
        type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, verbose=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    same_logits, other_sums = (Figures([], [], [], []) for _ in range(2))
    for document in reference.documents:
        theirs = llama_logits(export, document.ids)
        same_logits.add(document.ids, seen.take(theirs), theirs)
        with torch.inference_mode():
            original = model(torch.tensor([document.ids])).logits[0].numpy()
        other_sums.add(document.ids, original, theirs)
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

    assert entry.measurement.positions == len(same_logits.kl)
    assert estimates["mean_kl"].value > 1e-3, "8 bits cost this model something"
    assert_agreement(same_logits, REORDERED_FLOAT64)
    # The head is multiplied in another order: logits of about 1 are 1e-7 to 1e-6 apart, and what
    # that does to a KL of 4e-3 grows with the square root of its inverse.
    assert_agreement(other_sums, 1e-4)
