"""The stored weights against the checkpoint's: the worst ones, and what no rounding explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeproof.artifact import Precision
from runtimes.parity.localise.errors import WeightError, relative_error, weight_error
from runtimes.parity.localise.hints import hint
from runtimes.parity.localise.names import place_of
from runtimes.parity.localise.result import Cause, Finding, TensorError
from runtimes.weights.fused import Heads

EMBEDDING, LAST_NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"
WORST = 10
INF = float("inf")
# ‖W′ − W‖ / ‖W‖ that a precision can cost. Measured on the real 135M: fp16 2e-4, 8 bits 0.012,
# 4 bits 0.13; two bits may reach 0.4, while unrelated values give 1.4 and zeros 1.
LIMITS = {
    Precision.FP32: 1e-6,
    Precision.FP16: 2e-3,
    Precision.BF16: 8e-3,
    Precision.EIGHT_BIT: 0.05,
    Precision.LOW_BIT: 0.6,
}
# Norms and biases are stored in 16 bits at least, some of them with 1 added.
VECTOR_LIMIT = 8e-3
# Rounding is hardly correlated with what it rounds: the measured gains are within 0.005 of 1. The
# best scale of few bits makes values smaller by the square of the error.
GAIN, GAIN_OF_SQUARE = 0.01, 2.0
# The largest error within a block's own largest value, as a multiple of the tensor's error:
# measured up to 5. A damaged scale or a row in the wrong place gives 1 and more.
PEAK, PEAK_OF_ERROR = 0.08, 8.0
# In 16 bits every value is rounded by itself: twice what that can cost; and more than the smallest
# steps of float16, in a residual stream of 1/64.
OWN_PEAKS, BLIND = {Precision.FP16: 1e-3, Precision.BF16: 8e-3}, 4e-6
# Of few bits and by importance, what is of none may become anything below its block's largest
# value: measured up to 0.95 (IQ4_XS) and 23 times the tensor's error (Q6_K).
PEAK_OF_NO_IMPORTANCE = 1.0


def compare_tensors(
    stored: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    ids: Sequence[int],
    states: Mapping[str, np.ndarray],
    precision: Precision,
    heads: Heads,
    by_importance: bool = False,
) -> tuple[tuple[Finding, ...], tuple[TensorError, ...]]:
    """What is wrong with the weights, first layers first, and the worst by output error.

    `states` are the reference's on a short text, `ids`: what every module takes and gives.
    `by_importance` tells whether an importance matrix may have weighted the rounding, or that
    nobody knows how it was rounded.
    """
    peak = PEAK_OF_NO_IMPORTANCE if by_importance and precision is Precision.LOW_BIT else PEAK
    errors: list[TensorError] = []
    findings = []
    tied = f"{HEAD}.weight" not in expected
    for name, want in expected.items():
        got = stored.get(name)
        wrong, error, output_error = None, INF, INF
        if got is None:
            wrong = "missing"
        elif got.shape != want.shape:
            wrong = f"shape {list(got.shape)}, the checkpoint's is {list(want.shape)}"
        else:
            vector = want.ndim == 1
            own = VECTOR_LIMIT if vector else None if by_importance else OWN_PEAKS.get(precision)
            measured = weight_error(got, want, VECTOR_LIMIT if vector else BLIND if own else 0.0)
            error = measured.error
            if not _explained(measured, precision, vector, own, peak):
                wrong = hint(got, name, expected, heads, measured)
            if error > 0:
                output_error = _output_error(name, got, want, ids, states, tied)
        if wrong:
            layer, component = place_of(name)
            text = f"{name}: {wrong}"
            findings.append(Finding(Cause.WEIGHTS, text, layer, component, tensor=name))
        if error > 0:
            errors.append(TensorError(name, error, output_error, wrong))
    findings += [
        Finding(Cause.WEIGHTS, f"{name}: the checkpoint has no such tensor", tensor=name)
        for name in sorted(stored.keys() - expected.keys())
    ]
    ranked = sorted(errors, key=lambda item: (-item.output_error, -item.error))
    return tuple(findings), tuple(ranked[:WORST])


def _explained(
    found: WeightError, precision: Precision, vector: bool, own: float | None, peak: float
) -> bool:
    """Whether rounding to the precision can do that.

    With a peak of at most `own` where values are rounded by themselves, `peak` where in blocks.
    """
    limit = min(LIMITS[precision], VECTOR_LIMIT) if vector else LIMITS[precision]
    return (
        found.error <= limit
        and abs(found.gain - 1) <= GAIN + GAIN_OF_SQUARE * found.spread**2
        and found.peak <= (own or max(peak, PEAK_OF_ERROR * found.spread))
        and not found.lost
    )


def _output_error(
    name: str,
    got: np.ndarray,
    want: np.ndarray,
    ids: Sequence[int],
    states: Mapping[str, np.ndarray],
    tied: bool,
) -> float:
    """Relative error of its module's results that the tensor alone causes."""
    module, _, kind = name.rpartition(".")
    if kind == "bias":
        return relative_error(states[module] + (got - want), states[module])
    if want.ndim == 1:  # a norm: its weight multiplies channels, in each head alike
        rows = states[f"{module}.input"].reshape(-1, len(want))
        return relative_error(rows * got, rows * want)
    found = []
    if module == EMBEDDING:
        found.append(relative_error(got[np.asarray(ids)], want[np.asarray(ids)]))
    if module != EMBEDDING or tied:
        taken = states[LAST_NORM if module in (EMBEDDING, HEAD) else f"{module}.input"]
        found.append(relative_error(taken @ got.T, taken @ want.T))
    return max(found)
