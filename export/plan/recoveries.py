"""The recovered variants of a plan, as its record notes them: nothing is made of them yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.artifact.run_record import Origin, PlannedRecovery, PlannedVariant
from edgeproof.goal import Goal
from export.plan.plan import ModelRequest, VariantRequest

if TYPE_CHECKING:
    from export.sources import Source


def planned_recoveries(
    model: ModelRequest, source: Source, requests: Sequence[VariantRequest]
) -> tuple[PlannedRecovery, ...]:
    """One recovery for each goal that a model's variants have, in the plan's order.

    Raises:
        InputError: a bad model.
    """
    from export.checkpoint import open_folder
    from export.job import derived_name

    by_goal: dict[Goal, list[VariantRequest]] = {}
    for request in requests:
        if request.goal is not None:
            by_goal.setdefault(request.goal, []).append(request)
    if not by_goal:
        return ()
    name = source.name or derived_name(open_folder(source.path))
    found_by = None if model.adapters or Path(model.id).exists() else model.id
    origin = Origin(name, source.repo, source.revision, found_by)
    return tuple(
        PlannedRecovery(
            origin, goal, tuple(_planned(request, source.label, name) for request in wanted)
        )
        for goal, wanted in by_goal.items()
    )


def _planned(request: VariantRequest, label: str, name: str) -> PlannedVariant:
    form, variant = request.resolve()
    return PlannedVariant(
        path=f"{label}/{form.name}/{form.folder(name, variant)}",
        allow_degraded=request.allow_degraded,
        format=request.format,
        dtype=request.dtype,
        strict=request.strict,
        options=dict(request.options),
    )


def recovered_lines(recoveries: Sequence[PlannedRecovery], out: Path) -> Iterator[str]:
    """A line on each variant that will be recovered."""
    for recovery in recoveries:
        for variant in recovery.variants:
            yield (
                f"{variant.format:5}{variant.dtype:9}  {out / variant.path}"
                f"  (recover: {recovery.goal.text}; after the comparison)"
            )
