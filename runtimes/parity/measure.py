"""Measure one artifact: real bytes in the real runtime, and the same weights in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from export.errors import InputError
from runtimes.footprint import Footprint
from runtimes.parity.decoding import (
    GreedyResult,
    SampledResult,
    decode_greedily,
    decode_sampled,
)
from runtimes.parity.degeneration import Scorer
from runtimes.parity.metrics import PositionMetrics, compare, concatenate
from runtimes.parity.padding import PaddingResult, measure_padding
from runtimes.parity.positions import WorstPosition, worst_positions
from runtimes.parity.prefill import CACHE_KL_LIMIT, stepwise_kl
from runtimes.parity.reference import Reference, Rerun
from runtimes.parity.statistics import (
    Estimate,
    Histogram,
    log_histogram,
    mean_kl_by_kind,
    summarise,
)
from runtimes.parity.templates import TemplateResult
from runtimes.parity.tokenizer import tokenizer_mismatches
from runtimes.protocol import Runtime

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

FP16_MAX = 65504.0
# Rows that are compared at a time: the reference's logits of so many are in memory.
COMPARED_ROWS = 128

# Token ids [T] → logits float32 [.., V] of consecutive positions, T of them in all.
LogitBlocks = Callable[[Sequence[int]], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Measurement:
    """Everything that was measured on one artifact.

    `estimates` are of the runtime as users run it; `weights` of the same bytes dequantised by
    NumPy and run in PyTorch fp32, so that the error of the weights and of the runtime's arithmetic
    are told apart, on the `weight_positions` of every n-th document; None when every weight equals
    the checkpoint's (`exact_weights`), or when the file's weights cannot be told apart from its
    graph. `arithmetic_kl` is by how much the runtime's mean KL exceeds the weights' on the same
    positions, in nats.
    """

    runtime: str
    positions: int
    estimates: dict[str, Estimate]
    weights: dict[str, Estimate] | None
    weight_positions: int
    arithmetic_kl: float
    greedy: GreedyResult | None
    sampled: SampledResult | None
    padding: PaddingResult | None
    chat_template: TemplateResult
    tokenizer_strings: int
    tokenizer_mismatches: int
    max_kl: float
    kl_histogram: Histogram
    mean_kl_by_kind: dict[str, float]
    max_logit_difference: float
    load_seconds: float
    prefill_tokens_per_second: float
    footprint: Footprint | None = None
    failures: tuple[str, ...] = field(default=())
    exact_weights: bool = False
    worst_positions: tuple[WorstPosition, ...] = ()


def measure(
    reference: Reference,
    torch_runtime: TorchRuntime,
    open_runtime: Callable[[], Runtime],
    weights: Rerun | None,
    scorer: Scorer,
    template: TemplateResult,
    threads: int,
    advance: Callable[[], None],
    *,
    faults: Sequence[str] = (),
    residual_scale: float = 1.0,
) -> Measurement:
    """Run the artifact over the reference's documents; `advance` is called once per document.

    `weights` is what the artifact's weights gave in PyTorch; None says that there was nothing to
    run: they equal the checkpoint's, value by value, or cannot be read. `scorer` reads the replies,
    `template` is how the artifact's chat template came out. `faults` are what is broken without
    running it: no replies are asked for then. `residual_scale` is how much smaller the artifact's
    residual stream is than the reference's.

    Raises:
        InputError: the artifact cannot be opened, or has another vocabulary.
    """
    begin = time.perf_counter()
    runtime = open_runtime()
    load_seconds = time.perf_counter() - begin
    try:
        replayed = replay(reference, runtime.logit_blocks, weights, threads, advance)
        strings, wrong, first = tokenizer_mismatches(runtime, torch_runtime)
        failures = [*faults, *replayed.failures, *([template.fault] if template.fault else [])]
        if wrong:
            failures.append(f"{wrong} of {strings} strings tokenize differently, first {first!r}")
        padding = measure_padding(runtime, reference.documents)
        failures += [padding.fault] if padding and padding.fault else []
        cache_limit = padding.limit if padding else CACHE_KL_LIMIT
        asked = reference.greedy_chats if not failures else ()
        greedy = (
            decode_greedily(runtime, asked, scorer, torch_runtime.detokenize) if asked else None
        )
        cache_kl = greedy.cache_kl if greedy else None
        if not failures and not reference.greedy_chats:
            cache_kl = stepwise_kl(runtime, reference.documents)
        if cache_kl is not None and not cache_kl <= cache_limit:
            failures.append(f"KV cache: step by step differs from one pass by {cache_kl:.3g}")
        asked = reference.sampled_chats if not failures else ()
        sampled = (
            decode_sampled(runtime, asked, reference.samples, scorer, torch_runtime.detokenize)
            if asked
            else None
        )
        name = f"{runtime.name} {runtime.version} ({runtime.device})"
    finally:
        runtime.close()
    estimates, joined = summarise(replayed.metrics), concatenate(replayed.metrics)
    headroom = FP16_MAX / (reference.peak_activation * residual_scale)
    estimates["fp16_headroom"] = Estimate(headroom, headroom, headroom)
    if cache_kl is not None:
        estimates["cache_kl"] = Estimate(cache_kl, cache_kl, cache_kl)
    return Measurement(
        runtime=name,
        positions=reference.positions,
        estimates=estimates,
        weights=summarise(replayed.weight_metrics) if replayed.weight_metrics else None,
        weight_positions=sum(len(part.kl) for part in replayed.weight_metrics),
        arithmetic_kl=replayed.arithmetic_kl,
        greedy=greedy,
        sampled=sampled,
        padding=padding,
        chat_template=template,
        tokenizer_strings=strings,
        tokenizer_mismatches=wrong,
        max_kl=float(joined.kl.max()),
        kl_histogram=log_histogram(joined.kl),
        mean_kl_by_kind=mean_kl_by_kind(
            [document.kind for document in reference.documents], replayed.metrics
        ),
        max_logit_difference=float(joined.max_difference.max()),
        load_seconds=load_seconds,
        prefill_tokens_per_second=reference.positions / replayed.seconds,
        failures=tuple(failures),
        worst_positions=worst_positions(
            reference.documents, replayed.metrics, torch_runtime.detokenize
        ),
    )


@dataclass(frozen=True)
class Replay:
    """Metrics of each document, in the reference's order, and what was broken.

    `weight_metrics` are of the documents with the indices `weighed`.
    """

    metrics: list[PositionMetrics]
    weight_metrics: list[PositionMetrics]
    weighed: list[int]
    failures: list[str]
    seconds: float

    @property
    def arithmetic_kl(self) -> float:
        """Mean KL of the runtime minus the weights', on the documents that both have run."""
        if not self.weighed:
            return float(concatenate(self.metrics).kl.mean())
        run = concatenate([self.metrics[index] for index in self.weighed])
        return float((run.kl - concatenate(self.weight_metrics).kl).mean())


def replay(
    reference: Reference,
    logits: LogitBlocks,
    weights: Rerun | None,
    threads: int,
    advance: Callable[[], None],
) -> Replay:
    """Compare an artifact's logits with the reference's, document by document.

    Raises:
        InputError: the artifact has another vocabulary.
    """
    metrics: list[PositionMetrics] = []
    weight_metrics: list[PositionMetrics] = []
    weighed = list(weights.hidden) if weights else []
    failures: list[str] = []
    seconds = 0.0
    expected = np.empty((COMPARED_ROWS, len(reference.head)), np.float32)
    for index, document in enumerate(reference.documents):
        parts: list[list[PositionMetrics]] = []
        blocks = Stopwatch(logits(document.ids))
        start = 0
        for got in blocks:
            if got.shape[-1] != expected.shape[-1]:
                raise InputError(
                    f"logits of {got.shape[-1]} tokens, the reference's are of {expected.shape[-1]}"
                )
            bad: np.ndarray = ~np.all(np.isfinite(got), axis=-1)
            if bad.any():
                failures.append(
                    f"NaN or infinite logits at {bad.sum()} of {len(bad)} positions of"
                    f" {document.id}"
                )
                got = np.where(bad[:, None], 0.0, got)  # noqa: PLW2901
            for first in range(0, len(got), COMPARED_ROWS):
                exports = [got[first : first + COMPARED_ROWS]]
                stop = start + len(exports[0])
                if weights and index in weights.hidden:
                    exports.append(weights.logits(index, start, stop))
                theirs = reference.logits(index, start, stop, expected)
                parts.append(compare(theirs, exports, document.ids[start : stop + 1], threads))
                start = stop
        run, *others = (concatenate(side) for side in zip(*parts, strict=True))
        metrics.append(run)
        weight_metrics.extend(others)
        seconds += blocks.seconds
        advance()
    return Replay(metrics, weight_metrics, weighed, failures, seconds)


class Stopwatch:
    """An iterator that counts the seconds its source takes."""

    def __init__(self, source: Iterator[np.ndarray]) -> None:
        self._source = source
        self.seconds = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        """The source's items."""
        while True:
            begin = time.perf_counter()
            item = next(self._source, None)
            self.seconds += time.perf_counter() - begin
            if item is None:
                return
            yield item
