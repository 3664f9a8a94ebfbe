"""The advice of `runtimes.parity.advice` as rows and sentences, for every report alike."""

from __future__ import annotations

from collections.abc import Sequence

from edgeproof.display import megabytes, number
from runtimes.parity.advice import LEVELS, Advice, Cost, Point, Recommendation, advise
from runtimes.parity.result import ModelResult

NONE = "–"
SHIP_TITLES = (
    "target",
    "ship",
    "MB",
    "run there",
    *(f"meets {level.value} gates" for level in LEVELS),
)
SUMMARY_TITLES = ("model", "verdict", "target", "ship", "MB", "best below 8 bits")


def advice_lines(advice: Advice) -> dict[str, list[str]]:
    """Sentences by heading."""
    points = [point for point in advice.points if point.dominated_by is not None]
    front = [", ".join(point.export for point in advice.front)] if advice.points else []
    return {
        "What to ship, the smallest that passes": [
            _ship_text(found) for found in advice.recommendations
        ],
        "What fewer than 8 bits cost": [cost.text for cost in advice.costs],
        "What recovery mends": [found.text for found in advice.mended],
        "Not beaten in both size and mean KL (Pareto front)": front,
        "Beaten": [f"{point.export} {dominated_text(point)}" for point in points],
    }


def ship_cells(found: Recommendation) -> tuple[str, ...]:
    """Target, what to ship, its size, if it ran there, and what meets each precision's gates."""
    return (
        found.target,
        found.export or "none passes",
        megabytes(found.bytes) if found.bytes is not None else NONE,
        _run_there(found),
        *(found.levels[level.value] or NONE for level in LEVELS),
    )


def dominated_text(point: Point) -> str:
    """What beats an export, in all formats and in its own."""
    if point.dominated_by is None:
        return "on the front"
    if point.dominated_in_format in (None, point.dominated_by):
        return f"is dominated by {point.dominated_by}"
    return f"is dominated by {point.dominated_by}, in its format by {point.dominated_in_format}"


def point_cells(point: Point) -> tuple[str, ...]:
    """Size, bits per weight and damage."""
    return megabytes(point.bytes), f"{point.effective_bpw:.2f}", _damage(point)


def summary_rows(results: Sequence[ModelResult]) -> list[tuple[str, ...]]:
    """All models of a run: what to ship for each target, and the best export below 8 bits."""
    rows = []
    for result in results:
        advice = advise(result.entries)
        verdict = "accepted" if result.accepted else "refused"
        low = [f"{cost.export}, mean KL {_damage(cost)}" for cost in advice.costs[:1]]
        ships = [ship_cells(found)[:3] for found in advice.recommendations] or [(NONE,) * 3]
        rows += [(result.label, verdict, *ship, *(low or [NONE])) for ship in ships]
    return rows


def _damage(found: Point | Cost) -> str:
    """Mean KL, with its positions where these are not the whole text's."""
    part = f" (n = {found.positions:,})" if found.positions is not None else ""
    return f"{number(found.mean_kl)}{part}"


def _ship_text(found: Recommendation) -> str:
    others = [
        f"{level.value} gates: {found.levels[level.value] or 'none'}"
        for level in LEVELS
        if found.levels[level.value] != found.export
    ]
    met = f" ({'; '.join(others)})" if others else ""
    if found.export is None or found.bytes is None:
        return f"{found.target}: no export passes"
    smaller = f"; smaller, not passing: {', '.join(found.smaller)}" if found.smaller else ""
    unseen = f"; not run there, but in {found.elsewhere}" if found.elsewhere else ""
    return f"{found.target}: {found.export}, {megabytes(found.bytes)} MB{met}{smaller}{unseen}"


def _run_there(found: Recommendation) -> str:
    if found.export is None:
        return NONE
    return "yes" if found.executed else f"no: {found.elsewhere}"
