"""Types of results' fields that say more of their JSON than Python's own types do."""

from __future__ import annotations

from typing import Annotated, Any


class Keywords:
    """JSON Schema keywords of a field, beside or in place of those of its type."""

    def __init__(self, **keywords: Any) -> None:
        self.keywords = keywords


class ByMetric:
    """Of a mapping: its keys are metrics' names. `weights` says that the weights alone have them.

    What is measured once for a whole export is not among the weights' figures.
    """

    def __init__(self, *, weights: bool = False) -> None:
        self.weights = weights


# NaN and infinity are null in JSON; a plain float is always a number.
AnyFloat = Annotated[float, Keywords(type=["number", "null"])]
Sha256 = Annotated[str, Keywords(pattern="^[0-9a-f]{64}$")]
