"""From a plotting library's SVG to one that lives inside a page and follows its colours."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from edgeproof.verdicts import Verdict

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
REFERENCE = re.compile(r"url\(#([^)]+)\)")

# Plotting libraries take colours only: these stand for what the page's CSS says.
INK = "#010101"
FAINT = "#010102"
BACKGROUND = "#010103"
VERDICTS = {
    Verdict.PASS: "#010104",
    Verdict.DEGRADED: "#010105",
    Verdict.FAIL: "#010106",
    Verdict.INCONCLUSIVE: "#010107",
}
PAGE_COLOURS = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    BACKGROUND: "var(--surface)",
    **{colour: f"var(--{verdict.value.lower()})" for verdict, colour in VERDICTS.items()},
}
COLOUR = re.compile("|".join(PAGE_COLOURS))


def inline(svg: str, name: str, label: str) -> str:
    """Rewrite a whole SVG file for HTML: no prologue, the page's colours, ids that begin with name.

    `label` is what a screen reader says instead of the plot.
    """
    ET.register_namespace("", SVG)
    root = ET.fromstring(svg)
    for child in root.findall(f"{{{SVG}}}metadata"):
        root.remove(child)
    for element in root.iter():
        _adapt(element, name)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return ET.tostring(root, encoding="unicode")


def _adapt(element: ET.Element, name: str) -> None:
    target = element.attrib.pop(XLINK, None)
    if target is not None:
        element.set("href", target)
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == "href" and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        elif key != "d":
            text = REFERENCE.sub(rf"url(#{name}-\1)", value)
            element.set(key, COLOUR.sub(lambda match: PAGE_COLOURS[match[0]], text))
