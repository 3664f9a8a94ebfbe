"""Ask every detector, and put what explains most first."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController

from edgeproof.artifact import Artifact, Precision
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import InputError
from edgeproof.families.structure import Structure
from runtimes.common_tokens import CommonRows
from runtimes.config_facts import decoder_of
from runtimes.formats import dequantise, readable, reader_of
from runtimes.parity.localise.layers import (
    Flow,
    Step,
    first_fault,
    flow_of,
    given,
    layer_errors,
    limits_of,
    own_steps,
)
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.parity.localise.replay import cache_fault, tokenizer_fault
from runtimes.parity.localise.result import (
    Cause,
    Component,
    Finding,
    LayerError,
    Localisation,
    TensorError,
)
from runtimes.parity.localise.tensors import EMBEDDING, HEAD, compare_tensors
from runtimes.parity.localise.twins import apart, twin_fault
from runtimes.parity.measure import Measurement
from runtimes.parity.prefill import CACHE_KL_LIMIT
from runtimes.registry import open_runtime
from runtimes.states import LAST_NORM, LOGITS
from runtimes.weights.fused import Heads

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

# Tokens of the text that hidden states are compared on.
TOKENS = 64
# How the three worst are listed in one line.
LISTED = 3
ORDER = list(Cause)
UNKNOWN_STEPS = "the steps inside layers of this family are not compared"


@dataclass(frozen=True)
class Subject:
    """An artifact, its checkpoint folder, and what both are run on.

    `original` is the checkpoint in PyTorch; `ids` is a text, of which the beginning is used.
    """

    artifact: Artifact
    checkpoint: Path
    original: TorchRuntime
    ids: Sequence[int]
    threads: int
    runtime: str | None = None


@dataclass(frozen=True)
class Weighed:
    """What is wrong with an artifact's weights, and the worst of them."""

    findings: tuple[Finding, ...] = ()
    tensors: tuple[TensorError, ...] = ()


def weigh(subject: Subject, stored: Mapping[str, np.ndarray]) -> Weighed:
    """Compare the artifact's weights, as `runtimes.weights` reads them, with the checkpoint's."""
    model, ids = subject.original, list(subject.ids[:TOKENS])
    heads = Heads.of(read_json(subject.checkpoint / "config.json"))
    variant = subject.artifact.manifest.variant
    # OpenBLAS's threads spin after each product: three times the CPU seconds on two cores.
    products = ThreadpoolController().select(internal_api="openblas").limit(limits=1)
    # A damaged scale may give any value.
    expected, head = model.weights, f"{HEAD}.weight"
    if subject.artifact.foreign is not None and head in stored and head not in expected:
        # Others may store a tied head apart.
        expected = ChainMap({head: expected[f"{EMBEDDING}.weight"]}, expected)  # type: ignore[arg-type]
    vocabulary = subject.artifact.vocabulary
    if vocabulary is not None:
        stored, expected = CommonRows(stored, vocabulary), CommonRows(expected, vocabulary)
    with products, np.errstate(over="ignore", invalid="ignore"):
        return Weighed(
            *compare_tensors(
                stored,
                expected,
                ids,
                model.states(ids),
                variant.precision,
                heads,
                # Of others' files nobody knows.
                by_importance=variant.by_importance or subject.artifact.foreign is not None,
            )
        )


def localise(
    subject: Subject,
    measurement: Measurement | None,
    weighed: Weighed | None = None,
    *,
    trace: bool = True,
) -> Localisation:
    """Say where the artifact breaks; `measurement` is None where it could not be opened.

    `weighed` is what is known of the weights, if it is. Without `trace` nothing is run: cheap, and
    enough for chat template, metadata and weights. In another runtime than the format's usual one
    (`subject.runtime`) nothing is traced.
    """
    ids = list(subject.ids[:TOKENS])
    found = [
        *_measured(measurement, read=readable(subject.artifact)),
        *_asked(subject.artifact.check),
        *_asked(lambda: compare_metadata(subject.artifact, subject.checkpoint)),
    ]
    got: dict[str, np.ndarray] = {}
    flow = flow_of(_structure(subject))
    if trace and subject.runtime is None and flow is not None:
        found += _asked(lambda: got.update(_traced(subject, ids)))
        if measurement is not None:
            found += _asked(partial(_rerun, subject, ids, measurement))
    stored: Mapping[str, np.ndarray] = {}
    if readable(subject.artifact) and (weighed is None or got):
        try:
            stored = dequantise(subject.artifact, subject.original.weights)
            weighed = weighed or weigh(subject, stored)
        except InputError as error:
            stored = {}
            found.append(Finding(Cause.FILE, str(error)))
    weighed = weighed or Weighed()
    found += weighed.findings
    layers: tuple[LayerError, ...] = ()
    steps: list[Step] = []
    if got and flow is not None:
        try:
            layers, steps = _compare_states(subject, ids, got, stored, flow)
        except InputError as error:
            found.append(Finding(Cause.FILE, str(error)))
        fault = first_fault(steps, limits_of(subject.artifact))
        # It has a layer, findings alike have none; twins are as wrong as it, or right.
        found = [fault, *found] if fault else [*found, *_asked(lambda: _twins(subject, ids, got))]
    found.sort(key=lambda finding: ORDER.index(finding.cause))
    if not found:  # what is wrong in one graph alone, any of these names better
        found = _asked(lambda: apart(subject.artifact))
    if not found:
        found = [_nothing_wrong(subject.artifact, weighed.tensors, layers, steps)]
        if trace and flow is None:
            found = [replace(found[0], text=f"{found[0].text}; {UNKNOWN_STEPS}")]
    return Localisation(tuple(found), layers, weighed.tensors)


def _structure(subject: Subject) -> Structure | None:
    """What the model computes, where a family here reads its config."""
    decoder = decoder_of(read_json(subject.checkpoint / "config.json"))
    return None if decoder is None else decoder.structure


def _traced(subject: Subject, ids: Sequence[int]) -> dict[str, np.ndarray]:
    found = reader_of(subject.artifact).states(subject.artifact, ids, subject.threads)
    vocabulary = subject.artifact.vocabulary
    if vocabulary is None:
        return found
    return {**found, LOGITS: found[LOGITS][:, : vocabulary.common]}


def _twins(
    subject: Subject, ids: Sequence[int], got: Mapping[str, np.ndarray]
) -> Iterator[Finding]:
    for twin in reader_of(subject.artifact).twins(subject.artifact):
        fault = twin_fault(twin.name, got, twin.states(ids, subject.threads))
        if fault:
            yield fault


def _measured(measurement: Measurement | None, *, read: bool) -> Iterable[Finding]:
    """What running it told; `read` says whether its weights are compared, too."""
    if measurement is None:
        return
    if measurement.chat_template.fault:
        text = measurement.chat_template.fault.removeprefix("chat template: ")
        yield Finding(Cause.TEMPLATE, text)
    if measurement.long_range and measurement.long_range.fault:
        yield _long_range(measurement.long_range.fault, read=read)
    if measurement.padding and measurement.padding.fault:
        yield Finding(Cause.PADDING, measurement.padding.fault, component=Component.ATTENTION)


def _long_range(fault: str, *, read: bool) -> Finding:
    """Wrong weights come before it; where nobody compared them, they may be why."""
    if not read:
        return Finding(Cause.GRAPH, fault)
    text = f"{fault}: attention or positions change on the way"
    return Finding(Cause.GRAPH, text, component=Component.ATTENTION)


def _asked(question: Callable[[], Iterable[Finding] | None]) -> list[Finding]:
    """The answer; that it cannot be had is one too."""
    try:
        return list(question() or ())
    except InputError as error:
        return [Finding(Cause.FILE, str(error))]


def _compare_states(
    subject: Subject,
    ids: list[int],
    got: Mapping[str, np.ndarray],
    stored: Mapping[str, np.ndarray],
    flow: Flow,
) -> tuple[tuple[LayerError, ...], list[Step]]:
    """Errors by layer, and every step's own; with the checkpoint's weights if none are `stored`.

    Raises:
        InputError: the weights do not fit the model.
    """
    model, vocabulary = subject.original, subject.artifact.vocabulary
    common = slice(None if vocabulary is None else vocabulary.common)
    original = model.states(ids)
    original[LOGITS] = original[LAST_NORM] @ model.head[common].T
    with model.running(stored or model.weights):
        forced = model.states(ids, given(got, flow))
        forced[LOGITS] = forced[LAST_NORM] @ model.head[common].T
        steps = own_steps(got, forced, flow)
    return layer_errors(got, original, steps), steps


def _rerun(subject: Subject, ids: Sequence[int], measured: Measurement) -> list[Finding]:
    """What of tokenizer and KV cache is wrong, where the measurement says that something is."""
    runtime = open_runtime(subject.artifact, subject.threads)
    try:
        limit = measured.padding.limit if measured.padding else CACHE_KL_LIMIT
        found = [cache_fault(runtime, ids, limit)]
        if measured.tokenizer_mismatches:
            found.append(tokenizer_fault(runtime, subject.original, subject.original.added_tokens))
        return [finding for finding in found if finding]
    finally:
        runtime.close()


def _nothing_wrong(
    artifact: Artifact,
    tensors: Sequence[TensorError],
    layers: Sequence[LayerError],
    steps: Sequence[Step],
) -> Finding:
    """Say how the error came about where nothing is broken."""
    worst = max(steps, key=lambda step: step.error, default=None)
    cause = Cause.ROUNDING if tensors or _rounds(worst, artifact) else Cause.NONE
    if cause is Cause.NONE:
        text = "what the files say is what the checkpoint says"
        return Finding(cause, text + (", and no step stands out" if steps else ""))
    said = []
    if layers:
        said.append(
            f"error grows smoothly, from {layers[1].total:.2g} after layer 0 to"
            f" {layers[-2].total:.2g} before the last norm"
        )
    if tensors:
        listed = ", ".join(
            f"{item.name.removesuffix('.weight')} ({item.output_error:.2g})"
            for item in tensors[:LISTED]
        )
        said.append(f"largest contributions to outputs: {listed}")
    if worst is not None:
        where = worst.component.value
        where = where if worst.layer is None else f"layer {worst.layer}, {where}"
        said.append(f"the runtime's own arithmetic adds at most {worst.error:.2g} ({where})")
    return Finding(cause, "; ".join(said))


def _rounds(worst: Step | None, artifact: Artifact) -> bool:
    return worst is not None and artifact.manifest.variant.precision is not Precision.FP32
