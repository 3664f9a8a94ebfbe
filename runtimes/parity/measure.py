"""Measure one artifact: real bytes in the real runtime, and the same weights in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from runtimes.footprint import Footprint
from runtimes.formats import Twin
from runtimes.parity.answers import (
    GreedyReplies,
    GreedyResult,
    SampledResult,
    decode_greedily,
    greedy_result,
    sampled_result,
)
from runtimes.parity.decoding import NotFinite, decode_all, sampled
from runtimes.parity.degeneration import Scorer
from runtimes.parity.divergence import PositionMetrics, concatenate
from runtimes.parity.effort import FEW_GREEDY, FEW_SAMPLED, decided_widely
from runtimes.parity.execution import Execution
from runtimes.parity.fields import AnyFloat
from runtimes.parity.gates import Gate
from runtimes.parity.intervals import Estimate
from runtimes.parity.long_range import LongRange, measure_long_range
from runtimes.parity.looks import Look, Looks
from runtimes.parity.metrics import CACHE_KL, FP16_HEADROOM, ByMetric
from runtimes.parity.padding import PaddingResult, measure_padding
from runtimes.parity.positions import WorstPosition, worst_positions
from runtimes.parity.prefill import CACHE_KL_LIMIT, stepwise_kl
from runtimes.parity.reference import Reference
from runtimes.parity.repeats import counted_once, positions
from runtimes.parity.replay import replay
from runtimes.parity.stages import Stages
from runtimes.parity.statistics import Histogram, log_histogram, mean_kl_by_kind
from runtimes.parity.suite import Document
from runtimes.parity.templates import TemplateResult
from runtimes.parity.tokenizer import Mismatches, tokenizer_mismatches, wrapping_fault
from runtimes.parity.twins import Beginning, beginning, twin_faults
from runtimes.parity.verdict import judge
from runtimes.protocol import Runtime, WiderRuntime

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime


@dataclass(frozen=True)
class Measurement:
    """Everything that was measured on one artifact.

    The error of the weights and of the runtime's arithmetic are told apart by running the same
    bytes twice.
    """

    runtime: str
    """Name, version and device."""
    execution: Execution
    positions: int
    """Tokens at which logits were compared, those of a beginning that documents share once."""
    whole_text: bool
    """Whether they are the whole text's; else the first ones had decided."""
    looks: tuple[Look, ...]
    """What the growing parts of the text told, the last of which all else is of."""
    estimates: Annotated[dict[str, Estimate], ByMetric()]
    """Metric → estimate, of the runtime as users run it."""
    weights: Annotated[dict[str, Estimate], ByMetric(weights=True)] | None
    """The same of the artifact's weights, dequantised by NumPy and run in PyTorch fp32.

    Null when every weight equals the checkpoint's, or when the file's weights cannot be told apart
    from its graph.
    """
    weight_positions: int
    """Positions, of the first documents, that the weights alone were run on."""
    arithmetic_kl: float
    """Mean KL of the runtime minus that of the weights alone, on the same positions; nats."""
    greedy: GreedyResult | None
    """Null when there was no chat to answer, or the artifact failed before."""
    sampled: SampledResult | None
    """Null when nothing was sampled."""
    padding: PaddingResult | None
    """Null where the runtime has no batches."""
    chat_template: TemplateResult
    tokenizer_strings: int
    """Strings that both tokenizers read."""
    tokenizer_mismatches: int
    """Those that gave other ids."""
    max_kl: AnyFloat
    """The largest of a position, nats."""
    kl_histogram: Histogram
    """Positions by their KL; what is below 1e-12 is counted there."""
    mean_kl_by_kind: dict[str, AnyFloat]
    """Kind of text → mean KL, nats."""
    max_logit_difference: AnyFloat
    """Of raw logits, over all positions and tokens."""
    load_seconds: float
    """What opening it took, in the process that compares."""
    prefill_tokens_per_second: float
    """Over the text that was read."""
    footprint: Footprint | None = None
    """Null where it was not measured."""
    failures: tuple[str, ...] = field(default=())
    """Hard faults: any of them is a FAIL."""
    exact_weights: bool = False
    """Whether every weight equals the checkpoint's."""
    worst_positions: tuple[WorstPosition, ...] = ()
    """Where KL is greatest, the worst first."""
    tokenizer_apart: int = 0
    """Strings that the runtime's library splits otherwise, whatever the file says: not compared."""
    long_range: LongRange | None = None
    """Null where no long text was run: with fewer positions, or a text of one's own."""

    def kl_of_first(self, documents: int) -> float:
        """Mean KL of the text's first documents, where there was a look after so many; nats."""
        return next(look.mean_kl for look in self.looks if look.documents == documents)


@dataclass(frozen=True)
class KnownBefore:
    """What is known of an artifact before its runtime opens it.

    `weights` is what the artifact's weights gave in PyTorch on the first documents, and `alone` the
    estimates that follow; none says that there was nothing to run: they equal the checkpoint's,
    value by value, or cannot be read. `template` is how the artifact's chat template came out.
    `faults` are what is broken without running it.
    `execution` is how it is run, `headroom` what float16 leaves it (`runtimes.parity.headroom`),
    `gates` what it must reach; `together` says that several sequences in one call come out as each
    would alone. `twins` have to compute what it does.
    """

    weights: Sequence[PositionMetrics]
    alone: Mapping[str, Estimate] | None
    template: TemplateResult
    faults: Sequence[str]
    execution: Execution
    headroom: float
    gates: Sequence[Gate]
    together: bool
    twins: Sequence[Twin] = ()


@dataclass(frozen=True)
class Original:
    """The checkpoint in PyTorch; `scorer` reads replies with it.

    `samples` gives its own sampled replies to the first so many of `Reference.sampled_chats`.
    """

    runtime: TorchRuntime
    scorer: Scorer
    samples: Callable[[int], Sequence[tuple[int, ...]]]


def measure(
    reference: Reference,
    original: Original,
    open_runtime: Callable[[], Runtime],
    known: KnownBefore,
    threads: int,
    stages: Stages,
    keep: Callable[[Sequence[PositionMetrics]], None] = lambda counted: None,
) -> Measurement:
    """Run the artifact over the reference's documents; `stages` is told what is done.

    `keep` is told the metrics of the positions that count, of each document that was read.

    It stops where the first documents have decided that it is bad. The original reads the replies,
    and is asked for its own, once the runtime is closed. No replies are asked for where something
    is broken, and few where the verdict is clear without them.

    Raises:
        InputError: the artifact cannot be opened, or has another vocabulary.
    """
    torch_runtime, scorer = original.runtime, original.scorer
    torch_runtime.rest()
    begin = time.perf_counter()
    with stages.phase("load"):
        runtime = open_runtime()
    load_seconds = time.perf_counter() - begin
    try:
        with stages.phase("text", len(reference.documents)) as advance:
            read = _read(runtime, reference, torch_runtime, known, threads, advance)
        with stages.phase("replies"):
            written = _write(runtime, reference, known, read, scorer.stop_tokens)
        name = f"{runtime.name} {runtime.version} ({runtime.device})"
    finally:
        runtime.close()
    failures = [*read.failures, *written.failures]
    if read.begun:
        with stages.phase("twins"):
            failures += twin_faults(known.twins, read.begun, threads)
    chats, asked, decoded = written.chats, written.asked, written.decoded
    documents, detokenize = read.documents, torch_runtime.detokenize
    with stages.phase("the original's samples"):
        samples = original.samples(len(asked)) if asked else ()
    with stages.phase("reading replies"):
        likeliest = greedy_result(chats, decoded, scorer, detokenize) if decoded else None
        drawn = (
            sampled_result(asked, written.replies, samples, scorer, detokenize) if asked else None
        )
    keep(read.counted)
    joined = concatenate(read.counted)
    estimates = dict(read.estimates)
    if written.cache_kl is not None:
        estimates[CACHE_KL.name] = Estimate.exact(written.cache_kl)
    return Measurement(
        runtime=name,
        execution=known.execution,
        positions=len(joined.kl),
        whole_text=len(documents) == len(reference.documents),
        looks=read.looks,
        estimates=estimates,
        weights=dict(known.alone) if known.alone is not None else None,
        weight_positions=positions(reference.documents[: len(known.weights)]),
        arithmetic_kl=_arithmetic_kl(documents, read.metrics, known.weights),
        greedy=likeliest,
        sampled=drawn,
        padding=read.padding,
        chat_template=known.template,
        tokenizer_strings=read.told.strings,
        tokenizer_mismatches=read.told.wrong,
        tokenizer_apart=read.told.apart,
        max_kl=float(joined.kl.max()),
        kl_histogram=log_histogram(joined.kl),
        mean_kl_by_kind=mean_kl_by_kind([document.kind for document in documents], read.counted),
        max_logit_difference=float(joined.max_difference.max()),
        load_seconds=load_seconds,
        prefill_tokens_per_second=sum(len(item.ids) for item in documents) / read.seconds,
        failures=tuple(failures),
        worst_positions=worst_positions(documents, read.metrics, detokenize),
        long_range=read.long_range,
    )


@dataclass(frozen=True)
class _Read:
    """What came of reading texts: `metrics` of all positions, `counted` of those that count.

    `documents` are those that were read, `estimates` those of the last of the `looks`; `seconds`
    are those of the compared text; `begun` is for the twins.
    """

    documents: Sequence[Document]
    metrics: list[PositionMetrics]
    counted: list[PositionMetrics]
    looks: tuple[Look, ...]
    estimates: dict[str, Estimate]
    seconds: float
    told: Mismatches
    padding: PaddingResult | None
    begun: Beginning | None
    long_range: LongRange | None
    failures: list[str]


@dataclass(frozen=True)
class _Written:
    """What came of writing: chats that were answered, greedily and `asked` for samples."""

    chats: Sequence[Document]
    decoded: GreedyReplies | None
    asked: Sequence[Document]
    replies: Sequence[tuple[int, ...]]
    cache_kl: float | None
    failures: list[str]


def _read(
    runtime: Runtime,
    reference: Reference,
    torch_runtime: TorchRuntime,
    known: KnownBefore,
    threads: int,
    advance: Callable[[], None],
) -> _Read:
    """Awkward strings, a padded batch, the text, and, where nothing is broken, the long text."""
    template = known.template
    told = tokenizer_mismatches(runtime, torch_runtime, torch_runtime.added_tokens)
    wrapping = wrapping_fault(runtime, torch_runtime)
    broken = [fault for fault in (template.fault, wrapping) if fault]
    if told.wrong:
        broken.append(told.text)
    padding = measure_padding(runtime, reference.documents)
    broken += [padding.fault] if padding and padding.fault else []
    own = {FP16_HEADROOM.name: Estimate.exact(known.headroom)}

    def settled(found: Mapping[str, Estimate], failures: Sequence[str]) -> bool:
        faults = (*known.faults, *failures, *broken)
        return judge({**found, **own}, known.alone, known.gates, faults).settled

    looks = Looks(reference.documents, reference.parts, settled)
    replayed = replay(reference, runtime.logit_blocks, threads, advance, looks.enough)
    documents = reference.documents[: len(replayed.metrics)]
    failures = [*known.faults, *replayed.failures, *broken]
    failures += [runtime.beyond] if isinstance(runtime, WiderRuntime) and runtime.beyond else []
    begun = beginning(runtime, documents[0].ids) if known.twins else None
    far = None if failures else _long_range(runtime, reference, looks.estimates)
    failures += [far.fault] if far and far.fault else []
    return _Read(
        documents,
        replayed.metrics,
        counted_once(documents, replayed.metrics),
        tuple(looks.looks),
        looks.estimates | own,
        replayed.seconds,
        told,
        padding,
        begun,
        far,
        failures,
    )


def _write(
    runtime: Runtime,
    reference: Reference,
    known: KnownBefore,
    read: _Read,
    stop: Collection[int],
) -> _Written:
    """Replies, where nothing is broken, and whether steps agree with one pass."""
    length, together = reference.reply_tokens, known.together
    stopped = len(read.documents) < len(reference.documents)
    clear = stopped or decided_widely(read.estimates, known.alone, known.gates)
    chats, asked = _chats(reference, clear)
    if read.failures:
        chats = asked = ()
    decoded = decode_greedily(runtime, chats, length, stop, together=together) if chats else None
    cache_kl = decoded.cache_kl if decoded else None
    if not read.failures and not reference.greedy_chats:
        cache_kl = stepwise_kl(runtime, reference.documents)
    limit = read.padding.limit if read.padding else CACHE_KL_LIMIT
    failures = []
    if cache_kl is not None and not cache_kl <= limit:
        failures.append(f"KV cache: step by step differs from one pass by {cache_kl:.3g}")
    tasks = [sampled(chat.prompt, length) for chat in asked]
    try:
        replies = [item.reply for item in decode_all(runtime, tasks, stop, together=together)]
    except NotFinite as error:
        failures.append(f"sampled replies: {error}")
        asked, replies = (), []
    return _Written(chats, decoded, asked, replies, cache_kl, failures)


def _chats(reference: Reference, few: bool) -> tuple[Sequence[Document], Sequence[Document]]:
    """Those that are answered greedily, and those that are answered by sampling."""
    if few:
        return reference.greedy_chats[:FEW_GREEDY], reference.sampled_chats[:FEW_SAMPLED]
    return reference.greedy_chats, reference.sampled_chats


def _long_range(
    runtime: Runtime, reference: Reference, estimates: Mapping[str, Estimate]
) -> LongRange | None:
    """On the run's long text, if it has one."""
    if reference.probe is None:
        return None
    usual = estimates["mean_kl"].value
    return measure_long_range(runtime, reference.probe, reference.head, usual)


def _arithmetic_kl(
    documents: Sequence[Document],
    run: Sequence[PositionMetrics],
    weights: Sequence[PositionMetrics],
) -> float:
    """Mean KL of the runtime minus the weights', on the documents that both have run."""
    if not weights:
        return float(concatenate(counted_once(documents, run)).kl.mean())
    count = min(len(run), len(weights))
    sides = run[:count], weights[:count]
    both, alone = (concatenate(counted_once(documents[:count], side)).kl for side in sides)
    return float((both - alone).mean())
