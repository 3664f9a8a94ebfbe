"""Measure one artifact: real bytes in the real runtime, and the same weights in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runtimes.footprint import Footprint
from runtimes.parity.decoding import (
    GreedyResult,
    SampledResult,
    decode_greedily,
    greedy_result,
    sampled_reply,
    sampled_result,
)
from runtimes.parity.degeneration import Scorer
from runtimes.parity.divergence import PositionMetrics, concatenate
from runtimes.parity.intervals import Estimate
from runtimes.parity.metrics import CACHE_KL, FP16_HEADROOM
from runtimes.parity.padding import PaddingResult, measure_padding
from runtimes.parity.positions import WorstPosition, worst_positions
from runtimes.parity.prefill import CACHE_KL_LIMIT, stepwise_kl
from runtimes.parity.reference import Reference
from runtimes.parity.replay import replay
from runtimes.parity.statistics import Histogram, log_histogram, mean_kl_by_kind, summarise
from runtimes.parity.templates import TemplateResult
from runtimes.parity.tokenizer import tokenizer_mismatches
from runtimes.protocol import Runtime

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

FP16_MAX = 65504.0


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
    weights: Mapping[int, PositionMetrics],
    scorer: Scorer,
    template: TemplateResult,
    threads: int,
    advance: Callable[[], None],
    *,
    faults: Sequence[str] = (),
    residual_scale: float = 1.0,
) -> Measurement:
    """Run the artifact over the reference's documents; `advance` is called once per document.

    `weights` is what the artifact's weights gave in PyTorch, by document; none says that there was
    nothing to run: they equal the checkpoint's, value by value, or cannot be read. `scorer` reads
    the replies once the runtime is closed,
    `template` is how the artifact's chat template came out. `faults` are what is broken without
    running it: no replies are asked for then. `residual_scale` is how much smaller the artifact's
    residual stream is than the reference's.

    Raises:
        InputError: the artifact cannot be opened, or has another vocabulary.
    """
    torch_runtime.rest()
    begin = time.perf_counter()
    runtime = open_runtime()
    load_seconds = time.perf_counter() - begin
    try:
        replayed = replay(reference, runtime.logit_blocks, threads, advance)
        strings, wrong, first = tokenizer_mismatches(runtime, torch_runtime)
        failures = [*faults, *replayed.failures, *([template.fault] if template.fault else [])]
        if wrong:
            failures.append(f"{wrong} of {strings} strings tokenize differently, first {first!r}")
        padding = measure_padding(runtime, reference.documents)
        failures += [padding.fault] if padding and padding.fault else []
        cache_limit = padding.limit if padding else CACHE_KL_LIMIT
        chats = reference.greedy_chats if not failures else ()
        decoded = decode_greedily(runtime, chats, scorer.stop_tokens) if chats else None
        cache_kl = decoded.cache_kl if decoded else None
        if not failures and not reference.greedy_chats:
            cache_kl = stepwise_kl(runtime, reference.documents)
        if cache_kl is not None and not cache_kl <= cache_limit:
            failures.append(f"KV cache: step by step differs from one pass by {cache_kl:.3g}")
        asked = reference.sampled_chats if not failures else ()
        replies = [sampled_reply(runtime, chat.prompt, scorer.stop_tokens) for chat in asked]
        name = f"{runtime.name} {runtime.version} ({runtime.device})"
    finally:
        runtime.close()
    detokenize = torch_runtime.detokenize
    greedy = greedy_result(chats, decoded, scorer, detokenize) if decoded else None
    sampled = (
        sampled_result(asked, replies, reference.samples, scorer, detokenize) if asked else None
    )
    estimates, joined = summarise(replayed.metrics), concatenate(replayed.metrics)
    headroom = FP16_MAX / (reference.peak_activation * residual_scale)
    estimates[FP16_HEADROOM.name] = Estimate.exact(headroom)
    if cache_kl is not None:
        estimates[CACHE_KL.name] = Estimate.exact(cache_kl)
    return Measurement(
        runtime=name,
        positions=reference.positions,
        estimates=estimates,
        weights=summarise([*weights.values()]) if weights else None,
        weight_positions=sum(len(part.kl) for part in weights.values()),
        arithmetic_kl=_arithmetic_kl(replayed.metrics, weights),
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
        worst_positions=worst_positions(reference.documents, replayed.metrics, detokenize),
    )


def _arithmetic_kl(run: Sequence[PositionMetrics], weights: Mapping[int, PositionMetrics]) -> float:
    """Mean KL of the runtime minus the weights', on the documents that both have run."""
    if not weights:
        return float(concatenate(run).kl.mean())
    both = concatenate([run[index] for index in weights])
    return float((both.kl - concatenate([*weights.values()]).kl).mean())
