"""The recovered variants of a plan, as its record notes them: nothing is made of them yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.artifact.run_record import Origin, PlannedRecovery, PlannedVariant
from edgeproof.display import duration
from edgeproof.errors import InputError
from edgeproof.families import read_config
from edgeproof.goal import Goal
from edgeproof.recovery_cost import whole
from export.plan.plan import UP_TO, ModelRequest, Plan, VariantRequest

if TYPE_CHECKING:
    from export.checkpoint import CheckpointFolder
    from export.sources import Source


def planned_recoveries(
    model: ModelRequest, source: Source, plan: Plan
) -> tuple[tuple[PlannedRecovery, ...], str | None]:
    """One recovery for each goal that a plan's variants have, in its order.

    Of a larger model than the plan recovers there is none, and a line that says so.

    Raises:
        InputError: a bad model.
    """
    from export.checkpoint import open_folder
    from export.job import derived_name

    by_goal: dict[Goal, list[VariantRequest]] = {}
    for request in plan.variants:
        if request.goal is not None:
            by_goal.setdefault(request.goal, []).append(request)
    if not by_goal:
        return (), None
    checkpoint = open_folder(source.path)
    if plan.recover_up_to is not None and checkpoint.parameter_count > plan.recover_up_to:
        return (), _too_large(checkpoint, source.label, by_goal, plan.recover_up_to)
    name = source.name or derived_name(checkpoint)
    found_by = None if model.adapters or Path(model.id).exists() else model.id
    origin = Origin(name, source.repo, source.revision, found_by)
    recoveries = tuple(
        PlannedRecovery(
            origin, goal, tuple(_planned(request, source.label, name) for request in wanted)
        )
        for goal, wanted in by_goal.items()
    )
    return recoveries, None


def _too_large(
    checkpoint: CheckpointFolder,
    label: str,
    by_goal: Mapping[Goal, Sequence[VariantRequest]],
    limit: int,
) -> str:
    """What is left out, what it would take, and how to have it."""
    names = [f"{item.format} {item.dtype}" for wanted in by_goal.values() for item in wanted]
    with contextlib.suppress(InputError):  # of no known family
        shapes = [p.shape for p in read_config(checkpoint.raw_config)[1]]
        seconds = whole(shapes, {goal.tokens for goal in by_goal}, len(by_goal))
        count = checkpoint.parameter_count / 1e6
        return (
            f"{label}: {', '.join(names)} left out: {count:.0f}M"
            f" parameters take about {duration(seconds)} of one core, and the plan recovers up to"
            f" {limit / 1e6:g}M ({UP_TO}); --recover, or make export-all RECOVER=yes, makes them"
        )
    return f"{label}: {', '.join(names)} left out: of no architecture that is recovered"


def _planned(request: VariantRequest, label: str, name: str) -> PlannedVariant:
    form, variant = request.resolve()
    return PlannedVariant(
        path=f"{label}/{form.name}/{form.folder(name, variant)}",
        allow_degraded=request.allow_degraded,
        format=request.format,
        dtype=request.dtype,
        strict=request.strict,
        options=dict(request.options),
        runtime=request.runtime,
    )


def recovered_lines(recoveries: Sequence[PlannedRecovery], out: Path) -> Iterator[str]:
    """A line on each variant that will be recovered."""
    for recovery in recoveries:
        for variant in recovery.variants:
            yield (
                f"{variant.format:5}{variant.dtype:9}  {out / variant.path}"
                f"  (recover: {recovery.goal.text}; after the comparison)"
            )
