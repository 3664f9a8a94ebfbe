"""The plots of the page as inline SVG: size against damage, and how divergence is distributed.

They take their colours from the page's CSS variables, so that they follow light and dark mode, and
the same result gives the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from edgeproof.artifact import Precision
from edgeproof.display import number
from edgeproof.verdicts import Verdict
from runtimes.formats import reader_of
from runtimes.parity.advice import Advice
from runtimes.parity.localise.result import Localisation
from runtimes.parity.measure import Measurement
from runtimes.parity.report.svg import BACKGROUND, FAINT, INK, VERDICTS, inline
from runtimes.parity.report.xml_text import legal
from runtimes.parity.result import Entry
from runtimes.parity.statistics import LEAST_KL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Text stays text (searchable, in the page's font); ids do not depend on chance.
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "edgeproof", "text.parse_math": False}
# Where a label may go, in points from its mark, best first: (x, y, horizontal, vertical alignment).
PLACES = tuple(
    place
    for far in (7, 16, 28, 42, 58)
    for place in (
        (far * 0.7, far * 0.7, "left", "bottom"),  # off the stepped line
        (far * 0.7, -far * 0.7, "left", "top"),
        (far, 0, "left", "center"),
        (-far, 0, "right", "center"),
        (-far * 0.7, far * 0.7, "right", "bottom"),
        (-far * 0.7, -far * 0.7, "right", "top"),
        (0, far, "center", "bottom"),
        (0, -far, "center", "top"),
    )
)
# What a histogram points out: name, metric, height, and where the name's anchor is.
MARKS = (("median", "median_kl", 0.86, "right"), ("p99", "p99_kl", 0.99, "right"))
MOST_ERROR = 100.0  # larger relative errors are drawn there
ABOVE = 3  # points: a browser's font may be taller than the one that is measured here
WIDER = 1.08  # and wider
NEAR = 8  # points: beyond that, a line leads from the label to its mark


@dataclass(frozen=True)
class Size:
    """Inches (72 units of the SVG each) and the font's size in those units."""

    width: float
    height: float
    font: float


WIDE = Size(10.4, 4.2, 9.5)
NARROW = Size(4.6, 5.6, 10)
SMALL = Size(4.3, 1.7, 9.5)


def pareto_plot(entries: Sequence[Entry], advice: Advice, size: Size, name: str) -> str | None:
    """Size in MB against mean KL, both logarithmic; None where nothing was measured.

    Marks have their interval; dashed lines are the gates, the stepped one is the Pareto front,
    rings are the exports to ship. `name` keeps the ids of several plots on one page apart.
    """
    points = [
        (entry, entry.bytes / 1e6, entry.measurement) for entry in entries if entry.measurement
    ]
    if not points:
        return None
    with matplotlib.rc_context({**SETTINGS, "font.size": size.font}):
        figure, axes = _axes(size)
        axes.set(xscale="log", yscale="log")
        _plain(axes.xaxis)
        _plain(axes.yaxis)
        sizes = [mb for _, mb, _ in points]
        axes.set_xlim(min(sizes) * 0.8, max(sizes) * 1.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.set_xlabel("size, MB")
        axes.set_ylabel("mean KL, nats")
        shipped = {found.export for found in advice.recommendations}
        for entry, mb, m in points:
            _mark(axes, entry, mb, m, ringed=entry.name in shipped)
        front = [(p.bytes / 1e6, max(p.mean_kl, LEAST_KL)) for p in advice.front]
        if front:
            axes.step(*zip(*front, strict=True), where="post", color=FAINT, lw=1.2, zorder=1)
        taken = _gate_lines(axes, entries)
        axes.margins(y=0.08)
        names = [legal(entry.name) for entry, _, _ in points]
        _label(figure, axes, names, [(mb, _mean_kl(m)) for _, mb, m in points], taken)
        return _svg(figure, name, "Size of each export against its mean KL divergence")


def kl_plot(m: Measurement, span: tuple[float, float], size: Size, name: str) -> str:
    """How the positions' KL is distributed, from the histogram, on the axis `span`."""
    histogram = m.kl_histogram
    with matplotlib.rc_context({**SETTINGS, "font.size": size.font}):
        figure, axes = _axes(size)
        axes.set_xscale("log")
        _plain(axes.xaxis)
        axes.set_xlim(*span)
        axes.stairs(histogram.counts, histogram.edges, fill=True, color=FAINT)
        axes.set_ylim(0, max(histogram.counts) * 1.45)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("KL of a position, nats")
        for text, metric, height, side in MARKS:
            value = m.estimates[metric].value
            at = max(value, LEAST_KL)
            axes.axvline(at, ymax=height - 0.02, color=INK, lw=1, ls=":")
            axes.text(
                at,
                height,
                f" {text} {number(value)} ",
                transform=axes.get_xaxis_transform(),
                ha=side,
                va="top",
                color=INK,
            )
        return _svg(figure, name, "Histogram of the KL divergence over all positions")


def layer_plot(found: Localisation, size: Size, name: str) -> str | None:
    """Relative error after each layer, and each layer's own; None where layers were not traced."""
    errors = found.layer_errors
    if not errors:
        return None
    with matplotlib.rc_context({**SETTINGS, "font.size": size.font}):
        figure, axes = _axes(size)
        axes.set_yscale("log")
        _plain(axes.yaxis)
        places = range(-1, len(errors) - 1)  # the embedding comes before layer 0
        axes.plot(places, [_drawn(item.total) for item in errors], color=INK, lw=1.5)
        own = [_drawn(item.own) for item in errors]
        axes.plot(places, own, color=INK, ls="", marker=".", ms=4)
        if found.cause.layer is not None:
            axes.axvline(found.cause.layer, color=VERDICTS[Verdict.FAIL], lw=1, ls="--")
        axes.set_xlabel("layer")
        return _svg(figure, name, "Relative error by layer")


def _drawn(error: float) -> float:
    """On a logarithmic axis: nothing for zero, and not infinity."""
    return min(error, MOST_ERROR) if error > 0 else math.nan


def common_span(measurements: Iterable[Measurement]) -> tuple[float, float]:
    """An axis on which all histograms fit, so that their plots can be compared."""
    edges = [edge for m in measurements for edge in m.kl_histogram.edges]
    return min(edges), max(edges)


def _axes(size: Size) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(size.width, size.height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    axes.tick_params(which="both", color=FAINT, labelcolor=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def _plain(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, since a browser draws no mathematical notation."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _mean_kl(m: Measurement) -> float:
    return max(m.estimates["mean_kl"].value, LEAST_KL)


def _mark(axes: Axes, entry: Entry, mb: float, m: Measurement, *, ringed: bool) -> None:
    colour = VERDICTS[entry.judgement.verdict]
    ends = [max(end, LEAST_KL) for end in (m.estimates["mean_kl"].low, m.estimates["mean_kl"].high)]
    axes.plot([mb, mb], ends, color=colour, lw=1.5, zorder=2)
    axes.plot(
        [mb],
        [_mean_kl(m)],
        marker=reader_of(entry.artifact).marker,
        ms=8,
        color=colour,
        mec=BACKGROUND,
        zorder=3,
    )
    if ringed:
        axes.plot([mb], [_mean_kl(m)], marker="o", ms=15, mfc="none", mec=INK, mew=1.3, zorder=2)


def _gate_lines(axes: Axes, entries: Sequence[Entry]) -> list[Annotation]:
    limits: dict[float, dict[Precision, None]] = {}
    for entry in entries:
        for gate in entry.gates:
            if gate.metric == "mean_kl":
                limits.setdefault(gate.limit, {})[entry.artifact.manifest.variant.precision] = None
    texts = []
    across = axes.get_yaxis_transform()
    for limit, precisions in sorted(limits.items()):
        axes.axhline(limit, color=FAINT, lw=1, ls=(0, (4, 4)), zorder=0)
        text = f"{', '.join(p.value for p in precisions)} gate {limit:g}"
        texts.append(_note(axes, text, (1, limit), (0, 3, "right", "baseline"), xycoords=across))
    return texts


def _label(
    figure: Figure,
    axes: Axes,
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    taken: Sequence[Annotation],
) -> None:
    """Name each point where its label covers neither a mark nor another label."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    frame = axes.get_window_extent(renderer)
    top = figure.bbox.y1 - ABOVE * figure.dpi / 72
    marks = axes.transData.transform(points)
    reach = 5 * figure.dpi / 72
    boxes = [text.get_window_extent(renderer) for text in taken]
    boxes += [_square(x, y, reach) for x, y in marks]
    for index in sorted(range(len(points)), key=lambda i: -marks[i][1]):
        others = [box for at, box in enumerate(boxes) if at != len(taken) + index]
        for place in PLACES:
            label = _note(axes, names[index], points[index], place)
            box = label.get_window_extent(renderer).expanded(WIDER, 1)
            across = frame.x0 <= box.x0 and box.x1 <= frame.x1
            inside = across and frame.y0 <= box.y0 and box.y1 <= top
            if inside and not any(box.overlaps(other) for other in others):
                break
            label.remove()
        else:  # no room anywhere: better on top of something than not at all
            place = PLACES[0]
            box = _note(axes, names[index], points[index], place).get_window_extent(renderer)
        boxes.append(box)
        if max(abs(place[0]), abs(place[1])) > NEAR:
            line = {"arrowstyle": "-", "color": FAINT, "lw": 0.8, "shrinkB": 5}
            _note(axes, "", points[index], place, arrowprops=line)


def _note(
    axes: Axes,
    text: str,
    point: tuple[float, float],
    place: tuple[float, float, str, str],
    **options: Any,
) -> Annotation:
    """A label beside a point; the layout does not make room for it."""
    dx, dy, ha, va = place
    note = axes.annotate(
        text,
        point,
        xytext=(dx, dy),
        textcoords="offset points",
        ha=ha,
        va=va,
        color=INK,
        **options,
    )
    note.set_in_layout(False)
    return note


def _square(x: float, y: float, reach: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def _svg(figure: Figure, name: str, label: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return inline(buffer.getvalue(), name, label)
