"""One model after the other answers the same questions; the reference first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeproof.artifact import Artifact
from edgeproof.files.code import code_behind
from edgeproof.recovery import RECOVERY
from edgeproof.verdicts import TaskScore
from runtimes.parity.environment import environment
from runtimes.parity.inputs import check_current, recorded_inputs
from runtimes.parity.original import original_of
from runtimes.tasks.answers import Outcomes, outcomes, pooled
from runtimes.tasks.harness import RuntimeLM, Style
from runtimes.tasks.kept import Kept
from runtimes.tasks.questions import Questions
from runtimes.tasks.statistics import beside, score_of
from runtimes.tasks.subject import Subject, open_artifact_subject, open_reference_subject

HARNESS = "lm_eval"


@dataclass(frozen=True)
class Asked:
    """An export, the checkpoint of its reference if it has one, and where its scores go."""

    artifact: Artifact
    checkpoint: Path | None
    report: Path | None


@dataclass(frozen=True)
class How:
    """How models are run; `fresh` forgets what they have answered before."""

    threads: int
    style: Style
    runtime: str | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Evaluated:
    """What one model answered, by task and group of tasks.

    Of its tokens so many were `asked` for, and so many `computed`: the others were in the KV cache.
    """

    name: str
    ran: str
    tasks: dict[str, tuple[Outcomes, ...]]
    asked: int
    computed: int


def evaluate_all(
    asked: Sequence[Asked], questions: Questions, how: How
) -> Iterator[tuple[Asked, Evaluated, list[TaskScore]]]:
    """Every export with its scores.

    Raises:
        InputError: a model cannot be opened or asked, or is not of its reference's checkpoint.
    """
    references: dict[Path, Evaluated] = {}
    for item in asked:
        item.artifact.check()
        if item.checkpoint is not None:
            _check_inputs(item.artifact, item.checkpoint)
    for item in asked:
        reference = None
        if item.checkpoint is not None:
            if item.checkpoint not in references:
                open_it = partial(
                    open_reference_subject, original_of(item.checkpoint, None), how.threads
                )
                references[item.checkpoint] = evaluated(open_it, questions, how)
            reference = references[item.checkpoint]
        open_it = partial(open_artifact_subject, item.artifact, how.threads, how.runtime)
        found = evaluated(open_it, questions, how)
        yield item, found, list(_scores(item.artifact, found, reference, questions, how.style))


def evaluated(open_subject: Callable[[], Subject], questions: Questions, how: How) -> Evaluated:
    """Open a model, ask it everything, close it.

    Raises:
        InputError: it cannot be opened or asked.
    """
    subject = open_subject()
    try:
        kept = Kept(whose(subject, how), fresh=how.fresh)
        lm = RuntimeLM(subject, kept, how.style)
        results = questions.ask(lm)
    finally:
        subject.runtime.close()
    found = {name: tuple(outcomes(name, task, results)) for name, task in questions.tasks.items()}
    groups = {
        name: tuple(
            pooled([found[member] for member in questions.members(name)], results["results"][name])
        )
        for name in questions.groups
        if name in results["results"]
    }
    counts = lm.beginning
    return Evaluated(subject.name, subject.ran, {**found, **groups}, counts.asked, counts.computed)


def whose(subject: Subject, how: How) -> dict[str, Any]:
    """What answers depend on beside the request."""
    return {
        **subject.whose,
        "runtime": subject.ran,
        "threads": how.threads,
        "code": code_behind(__name__),
        "harness": metadata.version(HARNESS),
        "versions": environment(how.threads).versions,
        **asdict(how.style),
    }


def _check_inputs(artifact: Artifact, checkpoint: Path) -> None:
    """An export of a recovered checkpoint has other inputs than what it is compared with."""
    if RECOVERY not in {item.path for item in artifact.manifest.model.inputs}:
        check_current(artifact, recorded_inputs(checkpoint, [artifact]))


def _scores(
    artifact: Artifact,
    found: Evaluated,
    reference: Evaluated | None,
    questions: Questions,
    style: Style,
) -> Iterator[TaskScore]:
    variant = artifact.manifest.variant
    for name, items in found.tasks.items():
        facts, settings = questions.facts(name), questions.settings(name)
        if style.together > 1 and questions.written(name):
            settings += (f"{style.together} answers at a time",)
        theirs = {} if reference is None else {
            (item.metric, item.filter): item for item in reference.tasks[name]
        }  # fmt: skip
        for item in items:
            other = theirs.get((item.metric, item.filter))
            yield TaskScore(
                format=variant.format,
                variant=variant.name,
                manifest=artifact.sha256,
                runtime=found.ran,
                harness=metadata.version(HARNESS),
                task=name,
                version=facts.version,
                metric=item.metric,
                filter=item.filter,
                higher_is_better=item.higher_is_better,
                shots=facts.shots,
                chat=questions.asking.chat,
                questions=item.questions,
                samples=item.samples,
                total=facts.total,
                score=score_of(item),
                beside=None
                if other is None or reference is None
                else beside(item, other, reference.ran),
                settings=settings,
            )
