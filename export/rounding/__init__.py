"""How weights are rounded: what they can be stored on (`Grid`), how codes are chosen (`Method`).

Invariant: nothing here knows how a file is laid out. A writer maps its tensors, asks a method, and
packs what it gets.
"""

from export.rounding.evidence import Evidence, Need
from export.rounding.grid import BlockAxis, Grid, Kind, Rules
from export.rounding.method import Method, Rounded
from export.rounding.rounder import Rounder, rounder_of

__all__ = [
    "BlockAxis",
    "Evidence",
    "Grid",
    "Kind",
    "Method",
    "Need",
    "Rounded",
    "Rounder",
    "Rules",
    "rounder_of",
]
