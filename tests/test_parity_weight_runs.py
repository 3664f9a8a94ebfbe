"""Equal weights in different files are run once, and nothing else is taken for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.parity import run, tokenizer, weights_alone
from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.suite import Prompt, Suite
from runtimes.parity.weight_runs import WeightRuns, same_values
from tests.exported import export_tiny
from tests.tiny import make_checkpoint

EXTENT = run.Extent(footprints=False)


def test_a_value_a_shape_a_name_and_a_condition_tell_weights_apart() -> None:
    weights = {"a": np.arange(6, dtype=np.float32), "b": np.ones(2, np.float32)}
    others = [
        weights,
        {**weights, "a": np.nextafter(weights["a"], np.float32(9))},
        {**weights, "a": weights["a"].reshape(2, 3)},
        {"a": weights["a"]},
        {**weights, "b": np.array([1, np.nan], np.float32)},
    ]
    assert [same_values(weights, other) for other in others] == [True, *[False] * 4]
    runs: WeightRuns[int] = WeightRuns()
    numbers = iter(range(9))

    def found(condition: str, other: dict[str, np.ndarray]) -> int:
        return runs.once(condition, lambda: other, lambda: next(numbers))

    assert [found("16 bits", other) for other in others] == [0, 1, 2, 3, 4]
    assert [found("16 bits", other) for other in others] == [0, 1, 2, 3, 5]
    assert found("8 bits", weights) == 6


def test_fp16_of_two_formats_is_run_once_and_measured_as_if_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "COUNT", 10)
    checkpoint = make_checkpoint(tmp_path / "tiny", dtype="BF16")
    made = [
        export_tiny(checkpoint, form, dtype, tmp_path / form)
        for form, dtype in (("onnx", "fp16"), ("gguf", "f16"))
    ]
    text = "The ferry left at noon with three goats and a piano. "
    suite = Suite("some", tuple(Prompt(f"t{n}", "text", text * n) for n in (1, 2, 3)))
    runs: list[list[PositionMetrics]] = []
    replay_weights = weights_alone.replay_weights

    def counted(*arguments: Any) -> list[PositionMetrics]:
        runs.append(replay_weights(*arguments))
        return runs[-1]

    monkeypatch.setattr(weights_alone, "replay_weights", counted)
    requests = [run.Request(artifact.path, allow_degraded=True) for artifact in made]
    how = run.Conditions(suite, 1, {}, EXTENT)
    _, together = run.run_parity(run.ParityRun(checkpoint, requests, how))
    assert len(runs) == 1
    _, alone = run.run_parity(run.ParityRun(checkpoint, requests[-1:], how))
    assert len(runs) == 2
    found, expected = together[-1].measurement, alone[0].measurement
    assert found is not None
    assert expected is not None
    assert found.weights == expected.weights
    assert found.arithmetic_kl == expected.arithmetic_kl
    assert together[-1].judgement.verdict is alone[0].judgement.verdict
