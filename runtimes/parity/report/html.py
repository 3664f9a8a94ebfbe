"""Self-contained pages, of one model or over several: no request, no script, all text escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgeproof.artifact import Precision
from edgeproof.display import megabytes, number
from edgeproof.verdicts import TaskScore, Verdict
from runtimes.parity.advice import advise
from runtimes.parity.gates import Gate
from runtimes.parity.headroom import room_text
from runtimes.parity.localise.result import Localisation
from runtimes.parity.report.advice import (
    SHIP_TITLES,
    SUMMARY_TITLES,
    dominated_text,
    point_cells,
    ship_cells,
    summary_rows,
)
from runtimes.parity.report.columns import columns, errors, interval, part_text
from runtimes.parity.report.plots import (
    NARROW,
    SMALL,
    WIDE,
    common_span,
    kl_plot,
    layer_plot,
    pareto_plot,
)
from runtimes.parity.report.tasks import tasks_section
from runtimes.parity.report.texts import legible, sheets, visible
from runtimes.parity.report.where import broken
from runtimes.parity.result import Entry, ModelResult, smallest_passing

TEMPLATE = "page.html.j2"
MODELS_TEMPLATE = "models.html.j2"


@dataclass(frozen=True)
class Ranking:
    """A table that the page of an audit begins with: the closest first. All cells are text."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]


def page(
    result: ModelResult, ranking: Ranking | None = None, scores: Sequence[TaskScore] = ()
) -> str:
    """The page of one model; of an audit with a `ranking`; `scores` are of its exports in tasks."""
    section = tasks_section(scores, _mean_kls(result.entries))
    template = _environment().get_template(TEMPLATE)
    return template.render(_context(result), ranking=ranking, tasks=Markup(section))


def models_page(results: Sequence[ModelResult], pages: Sequence[str]) -> str:
    """What to ship of every model, with a link to each one's page."""
    models = [
        {"rows": summary_rows([result]), "page": quote(target)}
        for result, target in zip(results, pages, strict=True)
    ]
    template = _environment().get_template(MODELS_TEMPLATE)
    return template.render({"models": models, "titles": SUMMARY_TITLES})


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("runtimes.parity.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "interval": interval,
        "errors": errors,
        "part": part_text,
        "megabytes": megabytes,
        "visible": visible,
        "legible": legible,
        "ship_cells": ship_cells,
        "point_cells": point_cells,
        "dominated_text": dominated_text,
    }
    return environment


def _context(result: ModelResult) -> dict[str, Any]:
    entries = result.entries
    measured = [entry.measurement for entry in entries if entry.measurement]
    advice = advise(entries)
    span = common_span(measured) if measured else (0.0, 0.0)
    return {
        "result": result,
        "reference": result.reference,
        "headroom": room_text(result.reference.peaks),
        "columns": columns(),
        "counts": _counts(entries),
        "best": smallest_passing(entries),
        "advice": advice,
        "ship_titles": SHIP_TITLES,
        "sheets": sheets(entries),
        "where": _where(entries),
        "pareto": [
            (kind, _markup(pareto_plot(entries, advice, size, f"pareto-{kind}")))
            for kind, size in (("wide", WIDE), ("narrow", NARROW))
        ],
        "kl_plots": [
            _markup(kl_plot(e.measurement, span, SMALL, f"kl-{i}") if e.measurement else None)
            for i, e in enumerate(entries, 1)
        ],
        "gate_rows": [_gate_rows(entry) for entry in entries],
        "low_bit": _low_bit(entries),
    }


@dataclass(frozen=True)
class Where:
    """Where one export breaks, and a plot of its layers if they were traced."""

    entry: Entry
    found: Localisation
    broken: bool
    plot: Markup | None


def _where(entries: Sequence[Entry]) -> list[Where]:
    return [
        Where(
            entry,
            entry.localisation,
            broken(entry.localisation),
            _markup(layer_plot(entry.localisation, SMALL, f"layers-{index}")),
        )
        for index, entry in enumerate(entries, 1)
        if entry.localisation
    ]


def _markup(svg: str | None) -> Markup | None:
    """SVG of our own plots, whose texts are escaped already."""
    return None if svg is None else Markup(svg)


def _mean_kls(entries: Sequence[Entry]) -> dict[str, float | None]:
    """Of each artifact, by the SHA-256 of its manifest."""
    return {
        entry.artifact.sha256: entry.measurement.estimates["mean_kl"].value
        if entry.measurement
        else None
        for entry in entries
    }


def _counts(entries: Sequence[Entry]) -> list[tuple[Verdict, int]]:
    counts = Counter(entry.judgement.verdict for entry in entries)
    return [(verdict, counts[verdict]) for verdict in Verdict if counts[verdict]]


def _gate_rows(entry: Entry) -> list[tuple[Gate, Any]]:
    """Each gate and the estimate it is asked of; None where the weights are exact, or unread."""
    m = entry.measurement
    if m is None:
        return []
    return [
        (gate, (m.weights or {}).get(gate.metric) if gate.of_weights else m.estimates[gate.metric])
        for gate in entry.gates
    ]


@dataclass(frozen=True)
class LowBit:
    """What few bits cost one export: in all, by its weights alone, and by kind of text.

    `times` is the mean KL over its gate; `changed` how many of 100 sampled tokens change; `part` of
    how many positions all that is, where these are not the whole text's.
    """

    name: str
    part: str
    kl: float
    weights: float
    arithmetic: float
    times: float | None
    changed: float
    kinds: dict[str, float]


def _low_bit(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Rows of the exports below 8 bits, the kinds of text, and the worst value; None for none."""
    rows = []
    for entry in entries:
        m = entry.measurement
        if m is None or entry.artifact.manifest.variant.precision is not Precision.LOW_BIT:
            continue
        limit = next((gate.limit for gate in entry.gates if gate.metric == "mean_kl"), None)
        kl = m.estimates["mean_kl"].value
        rows.append(
            LowBit(
                name=entry.name,
                part=part_text(m),
                kl=kl,
                weights=m.weights["mean_kl"].value if m.weights else 0.0,
                arithmetic=m.arithmetic_kl,
                times=kl / limit if limit else None,
                changed=100 * (1 - m.estimates["acceptance"].value),
                kinds=m.mean_kl_by_kind,
            )
        )
    if not rows:
        return None
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.kinds))
    return {"rows": rows, "kinds": kinds, "top": max(max(row.kinds.values()) for row in rows)}
