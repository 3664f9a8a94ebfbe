"""Ask every detector, and put what explains most first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.artifact import Artifact, Precision
from export.errors import InputError
from runtimes.json_file import read_json
from runtimes.parity.localise.layers import (
    Step,
    first_fault,
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
from runtimes.parity.localise.tensors import compare_tensors
from runtimes.parity.measure import Measurement
from runtimes.registry import open_runtime
from runtimes.states import LAST_NORM, LOGITS
from runtimes.states import trace as trace_states
from runtimes.weights import dequantise, readable
from runtimes.weights.fused import Heads

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

# Tokens of the text that hidden states are compared on.
TOKENS = 64
EMBEDDING = "model.embed_tokens.weight"
# How the three worst are listed in one line.
LISTED = 3
ORDER = list(Cause)


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


def localise(
    subject: Subject, measurement: Measurement | None, *, trace: bool = True
) -> Localisation:
    """Say where the artifact breaks; `measurement` is None where it could not be opened.

    Without `trace` nothing is run: cheap, and enough for chat template, metadata and weights.
    """
    found: list[Finding] = []
    ids = list(subject.ids[:TOKENS])
    found += _measured(measurement)
    found += _asked(subject.artifact.check)
    found += _asked(lambda: compare_metadata(subject.artifact, subject.checkpoint))
    states = subject.original.states(ids)
    tensors: tuple[TensorError, ...] = ()
    stored, fault = _stored(subject)
    found += fault
    if stored is not None:
        config = read_json(subject.checkpoint / "config.json")
        precision = subject.artifact.manifest.variant.precision
        wrong, tensors = compare_tensors(
            stored, subject.original.weights, ids, states, precision, Heads.of(config)
        )
        found += wrong
    layers: tuple[LayerError, ...] = ()
    steps: list[Step] = []
    if trace and subject.runtime is None:
        states[LOGITS] = states[LAST_NORM] @ subject.original.head.T
        layers, steps, faults = _traced(subject, ids, states, stored)
        found += faults
        found += _rerun(subject, ids, measurement)
    found.sort(key=lambda finding: ORDER.index(finding.cause))
    if not found:
        found = [_nothing_wrong(subject.artifact, tensors, layers, steps)]
    return Localisation(tuple(found), layers, tensors)


def _measured(measurement: Measurement | None) -> Iterable[Finding]:
    if measurement is None:
        return
    if measurement.chat_template.fault:
        text = measurement.chat_template.fault.removeprefix("chat template: ")
        yield Finding(Cause.TEMPLATE, text)
    if measurement.padding and measurement.padding.fault:
        yield Finding(Cause.PADDING, measurement.padding.fault, component=Component.ATTENTION)


def _asked(question: Callable[[], Iterable[Finding] | None]) -> list[Finding]:
    """The answer; that it cannot be had is one too."""
    try:
        return list(question() or ())
    except InputError as error:
        return [Finding(Cause.FILE, str(error))]


def _stored(subject: Subject) -> tuple[Mapping[str, np.ndarray] | None, list[Finding]]:
    """The artifact's weights; None where they cannot be read, and why if that is a fault."""
    if not readable(subject.artifact):
        return None, []
    try:
        return dequantise(subject.artifact), []
    except InputError as error:
        return None, [Finding(Cause.FILE, str(error))]


def _traced(
    subject: Subject,
    ids: list[int],
    original: Mapping[str, np.ndarray],
    stored: Mapping[str, np.ndarray] | None,
) -> tuple[tuple[LayerError, ...], list[Step], list[Finding]]:
    """Errors by layer, every step's own error, and the first that is wrong."""
    model = subject.original
    try:
        got = trace_states(subject.artifact, ids, subject.threads)
        with model.running(stored if stored is not None else model.weights):
            forced = model.states(ids, given(got))
            forced[LOGITS] = forced[LAST_NORM] @ model.head.T
            embedded = model.weights[EMBEDDING][ids]
    except InputError as error:
        return (), [], [Finding(Cause.FILE, str(error))]
    steps = own_steps(got, forced, embedded)
    fault = first_fault(steps, limits_of(subject.artifact))
    return layer_errors(got, original, steps), steps, [fault] if fault else []


def _rerun(subject: Subject, ids: Sequence[int], measurement: Measurement | None) -> list[Finding]:
    """Tokenizer and KV cache, in the runtime."""
    try:
        runtime = open_runtime(subject.artifact, subject.threads)
    except InputError as error:
        return [Finding(Cause.FILE, str(error))]
    try:
        found = []
        if measurement is None or measurement.tokenizer_mismatches:
            found.append(tokenizer_fault(runtime, subject.original))
        if measurement and measurement.padding:
            found.append(cache_fault(runtime, ids, measurement.padding.limit))
        else:
            found.append(cache_fault(runtime, ids))
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
        text = "weights and metadata are the checkpoint's"
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
