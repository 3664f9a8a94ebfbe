"""Measure one artifact: real bytes in the real runtime, and the same weights in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from export.errors import InputError
from runtimes.parity.decoding import CACHE_KL_LIMIT, GreedyResult, decode_greedily
from runtimes.parity.metrics import PositionMetrics, compare, concatenate
from runtimes.parity.reference import Reference
from runtimes.parity.statistics import Estimate, summarise
from runtimes.parity.tokenizer import tokenizer_mismatches
from runtimes.protocol import Runtime

GREEDY_PROMPTS = 6
FP16_MAX = 65504.0

Logits = Callable[[Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Measurement:
    """Everything that was measured on one artifact.

    `estimates` are of the runtime as users run it; `weights` of the same bytes dequantised by
    NumPy and run in PyTorch fp32, so that the error of the weights and of the runtime's arithmetic
    are told apart; None when every weight equals the checkpoint's (`exact_weights`), or when the
    file's weights cannot be told apart from its graph.
    """

    runtime: str
    positions: int
    estimates: dict[str, Estimate]
    weights: dict[str, Estimate] | None
    greedy: GreedyResult | None
    tokenizer_strings: int
    tokenizer_mismatches: int
    max_kl: float
    max_logit_difference: float
    load_seconds: float
    prefill_tokens_per_second: float
    failures: tuple[str, ...] = field(default=())
    exact_weights: bool = False


def measure(
    reference: Reference,
    torch_runtime: Runtime,
    open_runtime: Callable[[], Runtime],
    weight_logits: Logits | None,
    threads: int,
    advance: Callable[[], None],
) -> Measurement:
    """Run the artifact over the reference's documents; `advance` is called once per document.

    `weight_logits` runs the artifact's weights in PyTorch; None says that there is nothing to run:
    they equal the checkpoint's, value by value, or cannot be read.

    Raises:
        InputError: the artifact cannot be opened, or has another vocabulary.
    """
    begin = time.perf_counter()
    runtime = open_runtime()
    load_seconds = time.perf_counter() - begin
    try:
        replayed = replay(reference, runtime.logits, weight_logits, threads, advance)
        strings, wrong, first = tokenizer_mismatches(runtime, torch_runtime)
        failures = list(replayed.failures)
        if wrong:
            failures.append(f"{wrong} of {strings} strings tokenize differently, first {first!r}")
        chats = [document for document in reference.documents if document.reply]
        greedy = decode_greedily(runtime, chats[:GREEDY_PROMPTS]) if not failures else None
        if greedy and not greedy.cache_kl <= CACHE_KL_LIMIT:
            failures.append(
                f"KV cache: step by step differs from one pass by {greedy.cache_kl:.3g}"
            )
        name = f"{runtime.name} {runtime.version} ({runtime.device})"
    finally:
        runtime.close()
    estimates, joined = summarise(replayed.metrics), concatenate(replayed.metrics)
    headroom = FP16_MAX / reference.peak_activation
    estimates["fp16_headroom"] = Estimate(headroom, headroom, headroom)
    return Measurement(
        runtime=name,
        positions=reference.positions,
        estimates=estimates,
        weights=summarise(replayed.weight_metrics) if replayed.weight_metrics else None,
        greedy=greedy,
        tokenizer_strings=strings,
        tokenizer_mismatches=wrong,
        max_kl=float(joined.kl.max()),
        max_logit_difference=float(joined.max_difference.max()),
        load_seconds=load_seconds,
        prefill_tokens_per_second=reference.positions / replayed.seconds,
        failures=tuple(failures),
    )


@dataclass(frozen=True)
class Replay:
    """Metrics of each document, in the reference's order, and what was broken."""

    metrics: list[PositionMetrics]
    weight_metrics: list[PositionMetrics]
    failures: list[str]
    seconds: float


def replay(
    reference: Reference,
    logits: Logits,
    weight_logits: Logits | None,
    threads: int,
    advance: Callable[[], None],
) -> Replay:
    """Compare an artifact's logits with the reference's, document by document.

    Raises:
        InputError: the artifact has another vocabulary.
    """
    metrics: list[PositionMetrics] = []
    weight_metrics: list[PositionMetrics] = []
    failures: list[str] = []
    seconds = 0.0
    for index, document in enumerate(reference.documents):
        expected = reference.logits(index)
        begin = time.perf_counter()
        got = logits(document.ids)
        seconds += time.perf_counter() - begin
        if got.shape != expected.shape:
            raise InputError(f"logits of shape {got.shape}, the reference's are {expected.shape}")
        bad: np.ndarray = ~np.all(np.isfinite(got), axis=-1)
        if bad.any():
            failures.append(
                f"NaN or infinite logits at {bad.sum()} of {len(bad)} positions of {document.id}"
            )
            got = np.where(bad[:, None], 0.0, got)
        exports = [got] if weight_logits is None else [got, weight_logits(document.ids)]
        run, *weights = compare(expected, exports, document.ids, threads)
        metrics.append(run)
        weight_metrics.extend(weights)
        advance()
    return Replay(metrics, weight_metrics, failures, seconds)
