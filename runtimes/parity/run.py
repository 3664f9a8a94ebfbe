"""Compare all artifacts of one model: reference once, then each artifact in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.display import number
from edgeproof.verdicts import Verdict
from runtimes.computing import AUTOMATIC, Computing
from runtimes.footprint import Costs, Footprint, footprint
from runtimes.formats import readable, reader_of
from runtimes.parity.agreement import agreement_with_cpu
from runtimes.parity.awaited import NOTHING, Awaited, Patient, to_end
from runtimes.parity.bench import Bench, Keep
from runtimes.parity.blame import blame
from runtimes.parity.captured import capture
from runtimes.parity.degeneration import Scorer
from runtimes.parity.execution import execution
from runtimes.parity.finished import Compared, Finished
from runtimes.parity.gates import Gate, gates_for
from runtimes.parity.headroom import headroom, placed, rooms, score_notes, squared_headroom
from runtimes.parity.inputs import check_current, recorded_inputs
from runtimes.parity.localise.contents import told_otherwise
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.parity.localise.twins import apart
from runtimes.parity.localised import localised
from runtimes.parity.looks import stopped_text
from runtimes.parity.measure import KnownBefore, Measurement, Original, measure
from runtimes.parity.omissions import not_compared, not_judged, set_apart
from runtimes.parity.original import (
    original_inputs,
    peaks_over,
    reading_of,
    recovered_from,
)
from runtimes.parity.result import ComparedText, Entry, InputFile, ReferenceFacts
from runtimes.parity.stages import Stages
from runtimes.parity.stored import stored_faults
from runtimes.parity.suite import Suite
from runtimes.parity.templates import compare_templates
from runtimes.parity.together import together
from runtimes.parity.unfinished import Unfinished
from runtimes.parity.verdict import Judgement, judge
from runtimes.parity.watch import UNWATCHED, Journal, Stage
from runtimes.parity.weights_alone import WEIGHT_POSITIONS, run_weights
from runtimes.peaks import Peak
from runtimes.registry import activations, adapter_of, open_reference, open_runtime


@dataclass(frozen=True)
class Request:
    """One artifact to compare; in another runtime than its format's usual one, if one is named.

    One that others made has no manifest at its path: what was `found` of it is given.
    """

    path: Path
    allow_degraded: bool
    runtime: str | None = None
    found: Artifact | None = None

    def opened(self) -> Artifact:
        """The artifact.

        Raises:
            InputError: there is none at its path.
        """
        return self.found or open_artifact(self.path)


@dataclass(frozen=True)
class Extent:
    """How much is looked at.

    `positions` asks for about so many instead of all; `footprints` for memory and speed of each
    artifact in a process of its own; `localise_all` says of every artifact where it diverges, not
    only of those that do not pass. Without `whole_text` an artifact that the first documents have
    decided to be bad is not run on the others. `journal` is told what the run is at, and `keep` of
    each artifact the metrics of its documents' positions that count. Artifacts whose runtimes are
    `awaited` are compared last. `costs` measures what one needs. `computing` is how PyTorch has
    the reference. What is found of each is kept as `unfinished` says, or beside the journal.
    """

    positions: int | None = None
    footprints: bool = True
    localise_all: bool = False
    whole_text: bool = True
    journal: Journal = UNWATCHED
    keep: Keep | None = None
    awaited: Awaited = NOTHING
    costs: Costs = footprint
    computing: Computing = AUTOMATIC
    unfinished: Unfinished | None = None


EVERYTHING = Extent()


@dataclass(frozen=True)
class Conditions:
    """What all models of a run have in common: the text, and the limits by format or variant."""

    suite: Suite
    threads: int
    gates: Mapping[str, Mapping[str, float]]
    extent: Extent = EVERYTHING


@dataclass(frozen=True)
class ParityRun:
    """Artifacts to compare with their checkpoint.

    Of a recovered one, what is stored is compared with it, and what is computed with the
    `original`.
    """

    checkpoint: Path
    requests: Sequence[Request]
    conditions: Conditions
    original: Path | None = None


def run_parity(asked: ParityRun) -> tuple[ReferenceFacts, list[Entry]]:
    """Compare artifacts with their checkpoint: facts on the reference, and the entries.

    An artifact that is damaged or stale, makes its runtime crash in a process of its own, or a
    reader or a runtime raise anything, becomes a FAIL entry.

    Raises:
        InputError: the checkpoint is gone, or a folder is no artifact at all.
    """
    return to_end(patient_parity(asked))


def patient_parity(asked: ParityRun) -> Patient[tuple[ReferenceFacts, list[Entry]]]:
    """`run_parity`, which gives way before it waits for an awaited runtime.

    Raises:
        InputError: as for `run_parity`.
    """
    return together(*(yield from _each(asked)))


def run_each(asked: ParityRun) -> tuple[ReferenceFacts, list[Entry]]:
    """As `run_parity`, without what follows from several artifacts: each is as if alone."""
    return to_end(_each(asked))


def _each(asked: ParityRun) -> Patient[tuple[ReferenceFacts, list[Entry]]]:
    checkpoint, requests = asked.checkpoint, asked.requests
    suite, threads = asked.conditions.suite, asked.conditions.threads
    extent = asked.conditions.extent
    artifacts = [request.opened() for request in requests]
    inputs = recorded_inputs(checkpoint, artifacts)
    compared_with = asked.original or checkpoint
    own = compared_with.samefile(checkpoint)
    recovered = recovered_from(checkpoint, inputs)
    files = original_inputs(compared_with, checkpoint, inputs)
    stages = Stages()
    awaited = extent.awaited
    stages.expect([_label(artifacts[turn]) for turn in awaited.turns(artifacts)])
    with stages.subject("reference"):
        how = extent.computing
        captured = capture(compared_with, suite, files, threads, extent.positions, stages, how)
        torch_runtime, reference = captured.runtime, captured.reference
        agreed = agreement_with_cpu(torch_runtime, compared_with, threads, how)
        stored, peaks = torch_runtime, reference.peaks
        if not own:
            with stages.phase("peaks"):
                stored = open_reference(checkpoint, threads, how)
                peaks = peaks_over(stored, reference.part(WEIGHT_POSITIONS).documents)
    reference = replace(reference, whole_text=extent.whole_text)
    scorer = Scorer(torch_runtime, torch_runtime.stop_tokens)
    unfinished = extent.unfinished
    kept = None if unfinished is None else unfinished.folder(asked, inputs, files)
    finished = Finished(kept or extent.journal.finished, extent.keep)
    bench = Bench(
        reference,
        torch_runtime,
        scorer,
        captured.suite.prompts,
        inputs,
        stored,
        files,
        peaks,
        threads,
        extent.footprints,
        checkpoint,
        extent.journal,
        stages,
        captured.note,
        finished.counted,
        extent.costs,
    )
    gated = [
        _gates(artifact, request.runtime, asked.conditions.gates, peaks)
        for artifact, request in zip(artifacts, requests, strict=True)
    ]
    results = yield from _in_turns(artifacts, requests, gated, bench, awaited, finished)
    entries = []
    for artifact, request, limits, found in zip(artifacts, requests, gated, results, strict=True):
        judged = found.judgement
        entry = Entry(
            artifact, request.allow_degraded, limits, judged, found.measurement, recovered=recovered
        )
        if extent.localise_all or judged.verdict in (Verdict.FAIL, Verdict.DEGRADED):
            entry = localised(
                entry, request.runtime, found.weighed, bench, always=extent.localise_all
            )
        entries.append(entry)
    extent.journal.leave()
    facts = ReferenceFacts(
        runtime=f"{torch_runtime.name} {torch_runtime.version}{reading_of(compared_with)}",
        text=ComparedText(captured.suite.name, captured.suite.digest),
        documents=len(reference.documents),
        positions=reference.positions,
        repeated=reference.tokens - reference.positions,
        peaks=peaks,
        fp16_headroom=headroom(rooms(peaks, 1.0)),
        fp16_headroom_squared=squared_headroom(peaks),
        floors={},
        inputs=tuple(InputFile(item.path, item.sha256) for item in inputs),
        original=None if own else tuple(InputFile(item.path, item.sha256) for item in files),
        weights=torch_runtime.weights_held,
        device=torch_runtime.device,
        agreement=agreed,
    )
    return facts, entries


def _gates(
    artifact: Artifact,
    runtime: str | None,
    overrides: Mapping[str, Mapping[str, float]],
    peaks: Sequence[Peak],
) -> tuple[Gate, ...]:
    variant, scale = artifact.manifest.variant, artifact.manifest.variant.facts.residual_scale
    float16 = "float16" in activations(artifact, runtime)
    gates = gates_for(variant.precision, overrides, runtime, float16=float16)
    return placed(gates, rooms(peaks, scale), scale)


def _in_turns(
    artifacts: Sequence[Artifact],
    requests: Sequence[Request],
    gated: Sequence[Sequence[Gate]],
    bench: Bench,
    awaited: Awaited,
    finished: Finished,
) -> Patient[list[Compared]]:
    """Compare all, those whose runtimes are awaited last; what was found, in their own order.

    What has no runtime in the end is a FAIL that says so.
    """
    found = {}
    for turn in awaited.turns(artifacts):
        if awaited.waits(artifacts[turn]):
            yield bench.rest
        lacking = awaited.lacking(artifacts[turn], bench.stages)
        with bench.stages.artifact(_label(artifacts[turn])) as tell:
            named = requests[turn].runtime
            compare = partial(_compare, artifacts[turn], named, bench, gated[turn])
            found[turn] = (
                Compared(Judgement(Verdict.FAIL, (lacking,)))
                if lacking
                else finished.once(artifacts[turn], named, compare)
            )
            tell(_found(found[turn]))
        bench.journal.leave()
    if awaited.exits:
        for turn, compared in found.items():
            runtime = requests[turn].runtime
            again = _in_peace(artifacts[turn], compared.measurement, bench, runtime)
            found[turn] = replace(compared, measurement=again)
    return [found[turn] for turn in range(len(artifacts))]


def _compare(
    artifact: Artifact,
    runtime: str | None,
    bench: Bench,
    limits: Sequence[Gate],
) -> Compared:
    variant = artifact.manifest.variant
    faults: list[str] = []
    try:
        bench.journal.enter(Stage.COMPARE, artifact.subject)
        with bench.stages.phase("files"):
            check_current(artifact, bench.inputs)
        with bench.stages.phase("footprint"):
            cost = _footprint(artifact, bench, runtime)
        with bench.stages.phase("metadata"):
            faults += stored_faults(compare_metadata(artifact, bench.checkpoint))
            faults += stored_faults([*apart(artifact)])
            otherwise = told_otherwise(artifact, bench.checkpoint)
        read = readable(artifact)
        weights, alone, weighed = (
            run_weights(artifact, bench, limits, faults) if read else ([], None, None)
        )
        with bench.stages.phase("templates"):
            template = compare_templates(
                reader_of(artifact).chat_template(artifact),
                bench.original.render_chat if bench.original.has_chat_template else None,
                bench.prompts,
            )
        facts = variant.facts
        room = rooms(bench.peaks, facts.residual_scale)
        known = KnownBefore(
            weights,
            alone,
            template,
            faults,
            execution(artifact, runtime),
            headroom(room),
            limits,
            # A traced graph computes the logits of every position of a prompt.
            together=not (facts.dynamic or facts.traced),
            twins=reader_of(artifact).twins(artifact) if runtime is None else (),
        )
        measurement = measure(
            bench.reference_for(artifact),
            Original(bench.original, bench.scorer, bench.samples),
            lambda: open_runtime(artifact, bench.threads, runtime),
            known,
            bench.threads,
            bench.stages,
            lambda counted: bench.keep(artifact, counted) if bench.keep else None,
        )
        measurement = replace(measurement, exact_weights=read and not weights, footprint=cost)
    except BaseException as error:  # noqa: BLE001  `blame` raises what is of no file
        reason = blame(error, foreign=artifact.foreign is not None)
        return Compared(Judgement(Verdict.FAIL, (*faults, reason)))
    m = measurement
    judgement = judge(m.estimates, m.weights, limits, m.failures)
    notes = (
        *([] if m.whole_text else [stopped_text(m.positions, bench.reference.positions)]),
        *([bench.note] if bench.note else []),
        *m.chat_template.notes,
        *not_compared(bench.prompts, bench.reference),
        *set_apart(m),
        *not_judged(limits, m),
        *score_notes(limits, room),
        *otherwise,
    )
    return Compared(judgement.noted(*notes), m, weighed)


def _found(compared: Compared) -> str:
    """The verdict in a few words."""
    verdict, measurement = compared.judgement.verdict.value, compared.measurement
    if measurement is None:
        return verdict
    return f"{verdict}, mean KL {number(measurement.estimates['mean_kl'].value)}"


def _label(artifact: Artifact) -> str:
    return f"{artifact.manifest.variant.format} {artifact.manifest.variant.name}"


def _footprint(artifact: Artifact, bench: Bench, runtime: str | None) -> Footprint | None:
    """What it costs, in a process that may crash before this one opens it; None if not asked for.

    Nor of another runtime: a software GPU's memory and speed say nothing of a real one's.
    """
    if not bench.footprints or not adapter_of(artifact, runtime).in_process:
        return None
    found = bench.costs(artifact, bench.threads, runtime, brief=runtime is not None)
    return found if runtime is None else None


def _in_peace(
    artifact: Artifact, measurement: Measurement | None, bench: Bench, runtime: str | None
) -> Measurement | None:
    """A measurement with a footprint taken when nothing is installed beside it any more."""
    if not (measurement and measurement.footprint and measurement.footprint.disturbed):
        return measurement
    bench.journal.enter(Stage.COMPARE, artifact.subject)
    with bench.stages.subject(_label(artifact)), bench.stages.phase("footprint again"):
        again = _footprint(artifact, bench, runtime)
    bench.journal.leave()
    return replace(measurement, footprint=again)
