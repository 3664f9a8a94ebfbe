"""What an audit found of one file, as a small SVG for a model card.

It says what the file was compared with, and claims nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from edgeproof.display import number
from edgeproof.verdicts import Verdict
from runtimes.audit.description import sha256_of_all
from runtimes.audit.inspection import Inspection
from runtimes.parity.report.columns import interval
from runtimes.parity.report.xml_text import legal
from runtimes.parity.result import Entry

if TYPE_CHECKING:
    from runtimes.audit.run import Audit

# White text on each has a contrast above 4.5.
COLOURS = {
    Verdict.PASS: "#1a7f37",
    Verdict.DEGRADED: "#9a6700",
    Verdict.FAIL: "#cf222e",
    Verdict.INCONCLUSIVE: "#57606a",
}
FONT = "Verdana,DejaVu Sans,Geneva,sans-serif"
NARROW, WIDE = "fijlrtI .,:;'|!()[]·", "mwMW%@—…"
LONGEST = 48  # characters of a name
HEIGHT, PAD, GAP = 42, 9, 12
LARGE, SMALL = 11, 9


@dataclass(frozen=True)
class Badge:
    """What it says. `file` and `model` may be any text; `sha256` is of all the `count` files."""

    file: str
    model: str
    sha256: str
    count: int
    day: str
    verdict: Verdict
    kl: str
    top1: str
    more: str
    """How sure, on how much text, and why, for who looks closer."""


def svg_of(done: Audit, model: str, day: str) -> str:
    """The picture of the only file of an audit."""
    (found,), (ranked,) = done.inspected, done.ranking
    return svg(badge_of(ranked.entry, found, model, day))


def badge_of(entry: Entry, found: Inspection, model: str, day: str) -> Badge:
    """Of one file that was compared with a model on a day."""
    m, manifest = entry.measurement, entry.artifact.manifest
    judged = f"by the gates of {manifest.variant.precision.value} files"
    reasons = "; ".join(entry.judgement.reasons)
    kl = top1 = "–"
    more = judged
    if m is not None:
        kl = number(m.estimates["mean_kl"].value)
        top1 = _percent(m.estimates["top1"].value)
        spread = interval(m.estimates["mean_kl"])
        more = f"{judged}, on {m.positions:,} positions, 95 % interval of KL {spread}"
    more = f"{more}: {reasons}" if reasons else more
    digest, count = sha256_of_all(manifest.outputs), len(manifest.outputs)
    return Badge(found.name, model, digest, count, day, entry.judgement.verdict, kl, top1, more)


def svg(badge: Badge) -> str:
    """The picture: the same badge gives the same bytes."""
    figures = f"KL {badge.kl} · top-1 {badge.top1}"
    said = f"compared with {_shortened(badge.model)} · {badge.day} · edgeproof"
    verdict = badge.verdict.value
    left = math.ceil(_width(verdict, LARGE, bold=True)) + 2 * PAD
    right = max(_width(figures, LARGE), _width(said, SMALL))
    width = left + math.ceil(right) + 2 * GAP
    of = "" if badge.count == 1 else f" of the sha256sum of its {badge.count} files"
    title = (
        f"{badge.file} (SHA-256 {badge.sha256}{of}) compared with {badge.model} by edgeproof on"
        f" {badge.day}: mean KL {badge.kl}, top-1 {badge.top1}, {verdict} {badge.more}"
    )
    x = left + GAP
    rows = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}"'
        f' viewBox="0 0 {width} {HEIGHT}" role="img" font-family="{FONT}">',
        f"<title>{_text(title)}</title>",
        f'<rect x=".5" y=".5" width="{width - 1}" height="{HEIGHT - 1}" rx="4" fill="#fff"'
        f' stroke="#d0d7de"/>',
        f'<path d="M4.5 .5H{left}V{HEIGHT - 0.5}H4.5a4 4 0 0 1-4-4V4.5a4 4 0 0 1 4-4z"'
        f' fill="{COLOURS[badge.verdict]}"/>',
        _line(verdict, PAD, 25, LARGE, "#fff", bold=True),
        _line(figures, x, 18, LARGE, "#1f2328"),
        _line(said, x, 33, SMALL, "#57606a"),
        "</svg>",
    )
    return "\n".join(rows) + "\n"


def _line(text: str, x: int, y: int, size: int, colour: str, *, bold: bool = False) -> str:
    """A line that is as wide as it was reckoned, whatever font there is."""
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}"{weight} fill="{colour}"'
        f' textLength="{_width(text, size, bold=bold):.0f}" lengthAdjust="spacingAndGlyphs">'
        f"{_text(text)}</text>"
    )


def _width(text: str, size: int, *, bold: bool = False) -> float:
    """About how wide a line is in Verdana, in units of the picture."""
    ems = sum(0.4 if c in NARROW else 0.98 if c in WIDE else 0.72 if c.isupper() else 0.625
              for c in text)  # fmt: skip
    return ems * size * (1.12 if bold else 1)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _shortened(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def _text(text: str) -> str:
    """Foreign text in XML."""
    return escape(legal(text), quote=False)
