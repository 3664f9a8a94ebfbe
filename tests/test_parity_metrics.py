"""The instrument itself: metrics equal their definitions, verdicts follow the interval."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproof.artifact import Precision
from edgeproof.errors import InputError
from edgeproof.verdicts import Verdict
from runtimes.parity import metrics, statistics
from runtimes.parity.decoding import first_difference
from runtimes.parity.divergence import HEAD, TEMPERATURE, TOP_P, PositionMetrics, compare, nucleus
from runtimes.parity.gates import GATES, HEADROOM, Gate, gates_for
from runtimes.parity.intervals import Estimate
from runtimes.parity.statistics import paired_difference, summarise
from runtimes.parity.verdict import judge

pytestmark = pytest.mark.numbers

VOCAB = 50
seeds = st.integers(0, 2**32 - 1)


def random_logits(seed: int, rows: int = 70, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (rows, VOCAB)).astype(np.float32)


def ids_for(rows: int) -> list[int]:
    return [(7 * i) % VOCAB for i in range(rows)]


def softmax(row: np.ndarray) -> np.ndarray:
    e = np.exp(row.astype(np.float64) - row.max())
    return np.asarray(e / e.sum())


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_kl_and_likelihood_follow_their_definitions(seed: int) -> None:
    p, q = random_logits(seed), random_logits(seed + 1)
    ids = ids_for(len(p))
    m = compare(p, q, ids)
    for row in (0, 33, 68):
        a, b = softmax(p[row]), softmax(q[row])
        assert m.kl[row] == pytest.approx((a * np.log(a / b)).sum(), rel=1e-9)
        assert m.nll_export[row] == pytest.approx(-np.log(b[ids[row + 1]]), rel=1e-9)
        assert m.top1[row] == (a.argmax() == b.argmax())
    assert np.isnan(m.nll_reference[-1])


@pytest.mark.parametrize("error", [0.01, 1.0])
def test_unlikely_tokens_do_not_blur_a_kl(error: float) -> None:
    width = 50_000  # most of them more than HEAD nats below the best
    rng = np.random.default_rng(3)
    p = rng.normal(0, 4, (20, width)).astype(np.float32)
    q = p + rng.normal(0, error, p.shape).astype(np.float32)
    assert (p.max(-1, keepdims=True) - p > HEAD).mean() > 0.5
    expected = [
        (a * np.log(a / b)).sum() for a, b in zip(map(softmax, p), map(softmax, q), strict=True)
    ]
    assert np.allclose(compare(p, q, ids_for(20)).kl, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_position_that_is_no_number_has_no_kl_and_its_neighbours_keep_theirs(bad: float) -> None:
    p, q = random_logits(0, 3), random_logits(1, 3)
    whole = compare(p, q, ids_for(3))
    q[1, 4] = bad
    m = compare(p, q, ids_for(3))
    assert np.isnan(m.kl[1])
    assert m.acceptance[1] == 0
    assert np.array_equal(m.kl[::2], whole.kl[::2])


@given(seeds, st.floats(-50, 50))
@settings(max_examples=20, deadline=None)
def test_identical_logits_and_shifted_logits_cost_nothing(seed: int, shift: float) -> None:
    p = random_logits(seed)
    m = compare(p, (p.astype(np.float64) + shift).astype(np.float64), ids_for(len(p)))
    assert np.abs(m.kl).max() < 1e-12
    assert m.top1.all()
    assert m.acceptance.min() > 1 - 1e-9


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_tiny_disturbance_gives_a_positive_kl_of_second_order(seed: int) -> None:
    p = random_logits(seed).astype(np.float64)
    d = 1e-5 * np.random.default_rng(seed + 1).normal(size=p.shape)
    kl = compare(p, p + d, ids_for(len(p))).kl
    assert (kl > 0).all()
    for row in (0, 40):
        w = softmax(p[row])
        variance = (w * d[row] ** 2).sum() - (w * d[row]).sum() ** 2
        assert kl[row] == pytest.approx(variance / 2, rel=1e-2)


def slow_nucleus(logits: np.ndarray) -> np.ndarray:
    p = softmax(logits / TEMPERATURE)
    order = np.argsort(-p, kind="stable")
    keep = order[: int(np.searchsorted(np.cumsum(p[order]), TOP_P)) + 1]
    result = np.zeros_like(p)
    result[keep] = p[keep] / p[keep].sum()
    return result


@given(seeds, st.sampled_from([0.0, 0.01, 0.3, 3.0]))
@settings(max_examples=60, deadline=None)
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(seed: int, scale: float) -> None:
    row = random_logits(seed, 1, scale)[0].astype(np.float64)
    fast = np.zeros(VOCAB)
    for token, mass in nucleus(row).items():
        fast[token] = mass
    assert np.allclose(fast, slow_nucleus(row), atol=1e-12)


def test_acceptance_is_the_overlap_of_the_sampling_distributions() -> None:
    p, q = random_logits(3, 5, 0.3), random_logits(4, 5, 0.3)
    expected = [
        np.minimum(slow_nucleus(a), slow_nucleus(b)).sum() for a, b in zip(p, q, strict=True)
    ]
    assert np.allclose(compare(p, q, ids_for(5)).acceptance, expected)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="logits"):
        compare(random_logits(0), random_logits(0)[:, :-1], ids_for(70))


def documents(noise: list[float], seed: int = 0) -> list[PositionMetrics]:
    rng = np.random.default_rng(seed)
    result = []
    for index, level in enumerate(noise):
        p = random_logits(index, 20)
        result.append(compare(p, p + level * rng.normal(size=p.shape), ids_for(20)))
    return result


def test_the_interval_widens_when_documents_differ_not_when_tokens_do() -> None:
    even = summarise(documents([0.3] * 12))["mean_kl"]
    uneven = summarise(documents([0.01] * 6 + [0.6] * 6))["mean_kl"]
    assert even.low < even.value < even.high
    assert uneven.high - uneven.low > 3 * (even.high - even.low)


def test_intervals_of_eight_documents_hold_the_true_mean_nearly_as_often_as_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    monkeypatch.setattr(metrics, "METRICS", metrics.METRICS[:1])
    rng, runs = np.random.default_rng(5), 300
    one = compare(random_logits(0, 1), random_logits(1, 1), [3])
    held = 0
    for _ in range(runs):
        texts = [replace(one, kl=np.array([kl])) for kl in rng.normal(1, 0.3, 8)]
        estimate = summarise(texts)["mean_kl"]
        held += estimate.low <= 1 <= estimate.high
    assert held / runs >= 0.88  # 0.83 with the plain percentiles


def test_the_summary_is_reproducible_and_exact_for_an_exact_export() -> None:
    assert summarise(documents([0.1] * 4)) == summarise(documents([0.1] * 4))
    exact = summarise(documents([0.0] * 4))
    assert exact["mean_kl"].high < 1e-12
    assert exact["clear_top1"].value == exact["clear_top1"].high == 1.0
    assert exact["clear_top1"].low < 0.9, "80 positions without an error are not proof"
    assert exact["perplexity_ratio"].value == pytest.approx(1.0)


def test_a_paired_difference_is_antisymmetric_and_zero_for_equal_exports() -> None:
    a, b = documents([0.1, 0.4, 0.2, 0.6]), documents([0.2, 0.3, 0.3, 0.7])
    forth, back = paired_difference(a, b), paired_difference(b, a)
    for name, one in forth.items():
        assert one.value == pytest.approx(-back[name].value)
        ends = -back[name].high, -back[name].low
        assert (one.low, one.high) == pytest.approx(ends, nan_ok=True)
    for name, same in paired_difference(a, a).items():
        assert same.value == 0
        assert {same.low, same.high} == {0.0} or name in ("p90_kl", "p99_kl"), name


def test_documents_without_positions_make_no_difference_more_certain() -> None:
    a, b = documents([0.1, 0.4, 0.2, 0.6]), documents([0.2, 0.3, 0.3, 0.7])
    empty = [a[0].taken(np.arange(0))] * 3
    assert paired_difference([*a, *empty], [*b, *empty]) == paired_difference(a, b)


def test_pairing_sees_what_two_separate_intervals_cannot_tell_apart() -> None:
    noise = [0.05, 0.1, 0.2, 0.4, 0.6, 0.9]
    a, b = documents(noise), documents([level * 1.1 for level in noise])
    first, second = summarise(a)["mean_kl"], summarise(b)["mean_kl"]
    assert first.high > second.low, "the two intervals overlap"
    assert paired_difference(a, b)["mean_kl"].low > 0


def test_other_documents_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same documents"):
        paired_difference(documents([0.1, 0.1]), documents([0.1]))


@pytest.mark.parametrize(
    ("estimate", "limit", "times"),
    [
        (Estimate(0.4, 0.2, 0.6), 0.5, 4.0),
        (Estimate(0.4, 0.3, 0.6), 0.35, 4.0),
        (Estimate(0.4, 0.3, 0.45), 0.5, 1.0),
        (Estimate(0.4, 0.3, 0.5), 0.4, float("inf")),
    ],
)
def test_the_text_needed_grows_with_the_square_of_the_missing_precision(
    estimate: Estimate, limit: float, times: float
) -> None:
    assert estimate.text_needed(limit) == pytest.approx(times)


AT_MOST = Gate("mean_kl", 0.05, "test")
AT_LEAST = Gate("clear_top1", 0.97, "test", at_least=True)


@pytest.mark.parametrize(
    ("kl", "top1", "expected"),
    [
        ((0.01, 0.005, 0.02), (0.99, 0.98, 1.0), Verdict.PASS),
        ((0.05, 0.05, 0.05), (0.97, 0.97, 0.97), Verdict.PASS),
        ((0.3, 0.2, 0.4), (0.99, 0.98, 1.0), Verdict.DEGRADED),
        ((0.01, 0.005, 0.02), (0.9, 0.88, 0.92), Verdict.DEGRADED),
        ((0.04, 0.03, 0.06), (0.99, 0.98, 1.0), Verdict.INCONCLUSIVE),
        ((0.06, 0.04, 0.07), (0.99, 0.98, 1.0), Verdict.INCONCLUSIVE),
        ((0.3, 0.2, 0.4), (0.975, 0.96, 0.99), Verdict.DEGRADED),
    ],
)
def test_a_verdict_uses_the_interval_not_the_point(
    kl: tuple[float, float, float], top1: tuple[float, float, float], expected: Verdict
) -> None:
    estimates = {"mean_kl": Estimate(*kl), "clear_top1": Estimate(*top1)}
    judgement = judge(estimates, None, (AT_MOST, AT_LEAST), ())
    assert judgement.verdict is expected
    assert bool(judgement.reasons) == (expected is not Verdict.PASS)


def test_a_hard_fault_fails_whatever_the_numbers() -> None:
    estimates = {"mean_kl": Estimate(0, 0, 0), "clear_top1": Estimate(1, 1, 1)}
    assert judge(estimates, None, (AT_MOST, AT_LEAST), ("NaN",)).verdict is Verdict.FAIL


OF_WEIGHTS = Gate("acceptance", 0.97, "test", at_least=True, of_weights=True)
GOOD, POOR = Estimate(0.99, 0.98, 1.0), Estimate(0.95, 0.94, 0.96)


def test_a_gate_on_the_weights_is_not_met_by_a_good_runtime_nor_missed_by_a_poor_one() -> None:
    degraded = judge({"acceptance": GOOD}, {"acceptance": POOR}, (OF_WEIGHTS,), ())
    assert degraded.verdict is Verdict.DEGRADED
    passed = judge({"acceptance": POOR}, {"acceptance": GOOD}, (OF_WEIGHTS,), ())
    assert passed.verdict is Verdict.PASS
    assert "in the runtime acceptance = 0.95 [0.94, 0.96] misses" in passed.notes[0]


def test_what_a_runtime_leaves_open_of_a_gate_on_the_weights_is_not_called_missed() -> None:
    wide = Estimate(0.98, 0.96, 0.99)
    (note,) = judge({"acceptance": wide}, {"acceptance": GOOD}, (OF_WEIGHTS,), ()).notes
    assert "[0.96, 0.99] straddles" in note


@pytest.mark.parametrize("precision", Precision)
def test_gates_of_every_precision_refuse_what_is_far_off(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 50)
    far = compare(random_logits(0, 40), random_logits(1, 40), ids_for(40))
    same = compare(random_logits(0, 400), random_logits(0, 400), ids_for(400))
    gates = gates_for(precision, {})
    for found, expected in (
        ([far] * 4, Verdict.DEGRADED),
        ([same] * 10, Verdict.PASS),
        ([same] * 2, Verdict.INCONCLUSIVE),
    ):
        estimates = summarise(found)
        assert judge(estimates, estimates, gates, ()).verdict is expected


def test_a_plan_overrides_one_limit_and_unknown_names_are_refused() -> None:
    gates = gates_for(Precision.EIGHT_BIT, {"8-bit": {"mean_kl": 0.5}})
    assert {gate.metric: gate.limit for gate in gates}["mean_kl"] == 0.5
    assert gates_for(Precision.FP16, {"8-bit": {"mean_kl": 0.5}}) == GATES[Precision.FP16]
    for wrong in ({"9-bit": {"mean_kl": 1.0}}, {"8-bit": {"kl": 1.0}}):
        with pytest.raises(InputError, match="gates"):
            gates_for(Precision.FP16, wrong)


def test_a_plan_may_put_a_limit_on_any_metric_that_has_an_interval() -> None:
    own = GATES[Precision.EIGHT_BIT]
    limits = {"top1": 0.95, "perplexity_ratio": 1.01}
    *before, top1, ratio = gates_for(Precision.EIGHT_BIT, {"8-bit": limits})
    assert tuple(before) == own
    assert (top1.text, ratio.text) == ("top1 ≥ 0.95", "perplexity_ratio ≤ 1.01")
    with pytest.raises(InputError, match="cache_kl"):
        gates_for(Precision.EIGHT_BIT, {"8-bit": {"cache_kl": 1.0}})


@pytest.mark.parametrize("precision", Precision)
def test_headroom_is_asked_of_what_computes_in_float16_only(precision: Precision) -> None:
    plain = gates_for(precision, {})
    assert HEADROOM.metric not in {gate.metric for gate in plain}
    assert gates_for(precision, {}, float16=True) == (*plain, HEADROOM)
    plan = {precision.value: {HEADROOM.metric: 1.0}}
    assert gates_for(precision, plan) == plain
    assert gates_for(precision, plan, float16=True)[-1].text == "fp16_headroom ≥ 1"


def test_fp16_has_gates_of_its_own_on_webgpu_and_a_plan_may_override_them() -> None:
    limits = {gate.metric: gate.limit for gate in gates_for(Precision.FP16, {}, "webgpu")}
    assert limits["mean_kl"] == 0.02
    (first, *_) = gates_for(Precision.FP16, {"fp16-webgpu": {"mean_kl": 0.5}}, "webgpu")
    assert first.limit == 0.5
    assert gates_for(Precision.EIGHT_BIT, {}, "webgpu") == GATES[Precision.EIGHT_BIT]


@pytest.mark.parametrize(
    ("a", "b", "expected"), [([1, 2, 3], [1, 2, 3], 3), ([1, 9], [1, 2], 1), ([], [1], 0)]
)
def test_the_first_difference_is_the_common_prefix(
    a: list[int], b: list[int], expected: int
) -> None:
    assert first_difference(a, b) == expected


def test_a_text_that_cannot_tell_leaves_a_gate_open_instead_of_passing_it() -> None:
    (alone,) = documents([0.0])
    single = summarise([alone])
    assert single["mean_kl"].value == pytest.approx(0.0, abs=1e-12)
    assert not single["mean_kl"].known
    judgement = judge(single, None, (AT_MOST, AT_LEAST), ())
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reasons[0].startswith("undecided, needed mean_kl ≤ 0.05: one document has")

    undecided = random_logits(0, 20, 0.01)
    unclear = summarise([compare(undecided, undecided, ids_for(20))] * 3)
    assert unclear["mean_kl"].known
    assert np.isnan(unclear["clear_top1"].value)
    (reason,) = judge(unclear, None, (AT_MOST, AT_LEAST), ()).reasons
    assert reason == "undecided, needed clear_top1 ≥ 0.97: no position of the text counts;" + (
        " give more text"
    )


def test_texts_of_one_token_have_no_perplexity_and_are_still_compared() -> None:
    p, q = random_logits(1, 1), random_logits(2, 1)
    short = summarise([compare(p, q, [3])] * 2)
    assert np.isnan(short["perplexity_ratio"].value)
    assert short["mean_kl"].value > 0
    longer = summarise([compare(p, q, [3]), *documents([0.1, 0.1])])
    assert longer["perplexity_ratio"].known


def test_the_bootstrap_needs_no_memory_for_every_resample() -> None:
    many = documents([0.1]) * 200  # 4,000 positions; all resamples' weights would be 32 MB
    tracemalloc.start()
    summarise(many)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6


def test_logit_differences_follow_their_definitions() -> None:
    p, q = random_logits(1).astype(np.float64), random_logits(2).astype(np.float64)
    found = summarise([compare(p[:30], q[:30], ids_for(30)), compare(p[30:], q[30:], ids_for(40))])
    error = ((p - q) ** 2).mean()
    assert found["rms_logit_difference"].value == pytest.approx(np.sqrt(error))
    assert found["nmse"].value == pytest.approx(error / p.var(-1).mean())
    assert compare(p, q, ids_for(70)).max_difference.max() == pytest.approx(np.abs(p - q).max())
