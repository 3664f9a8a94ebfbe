"""A runtime's own floor comes from exact float32 artifacts only, and explains narrow misses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeproof.artifact import Precision
from runtimes.parity.execution import Execution
from runtimes.parity.floor import Floor, floor_notes, floors
from runtimes.parity.gates import Gate
from runtimes.parity.intervals import Estimate
from runtimes.parity.measure import Measurement
from runtimes.parity.statistics import log_histogram
from runtimes.parity.templates import TemplateResult

GATE = Gate("mean_kl", 2e-4, "test")
KNOWN = {"r 1": Floor("onnx fp32", 1e-4, 1e-3)}


def measurement(mean_kl: float) -> Measurement:
    return Measurement(
        runtime="r 1",
        execution=Execution("cpu", "float32", True, ()),
        positions=1,
        whole_text=True,
        looks=(),
        estimates={name: Estimate(mean_kl, mean_kl, mean_kl) for name in ("mean_kl", "p99_kl")},
        weights=None,
        weight_positions=0,
        arithmetic_kl=0.0,
        greedy=None,
        sampled=None,
        padding=None,
        chat_template=TemplateResult(0, 0, 0, None),
        tokenizer_strings=0,
        tokenizer_mismatches=0,
        max_kl=0.0,
        kl_histogram=log_histogram(np.zeros(1)),
        mean_kl_by_kind={},
        max_logit_difference=0.0,
        load_seconds=0.0,
        prefill_tokens_per_second=0.0,
    )


def artifact(precision: Precision) -> Any:
    variant = SimpleNamespace(format="onnx", name=precision.value, precision=precision)
    return SimpleNamespace(manifest=SimpleNamespace(variant=variant))


def test_only_sound_float32_artifacts_with_exact_weights_give_a_floor() -> None:
    exact = replace(measurement(3e-9), exact_weights=True)
    known = floors([(artifact(Precision.FP32), exact), (artifact(Precision.FP16), exact)])
    assert known == {"r 1": Floor("onnx fp32", 3e-9, 3e-9)}
    rounded = replace(exact, exact_weights=False, weights=exact.estimates)
    unread = replace(exact, exact_weights=False)  # as a traced graph's
    part = replace(exact, whole_text=False)
    for other in (rounded, unread, part, replace(exact, failures=("NaN",)), None):
        assert floors([(artifact(Precision.FP32), other)]) == {}


@pytest.mark.parametrize(
    ("mean_kl", "noted"), [(1e-4, False), (2e-4, False), (2.5e-4, True), (3.5e-4, False)]
)
def test_a_miss_by_less_than_the_floor_is_noted(mean_kl: float, noted: bool) -> None:
    notes = floor_notes(measurement(mean_kl), (GATE,), KNOWN)
    assert bool(notes) == noted
    assert all("onnx fp32" in note for note in notes)
    assert floor_notes(measurement(mean_kl), (GATE,), {}) == []
    assert floor_notes(measurement(mean_kl), (replace(GATE, of_weights=True),), KNOWN) == []
