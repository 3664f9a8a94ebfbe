"""Types of results' fields that say more of their JSON than Python's own types do."""

from __future__ import annotations

from typing import Annotated, Any


class Keywords:
    """JSON Schema keywords of a field, beside or in place of those of its type."""

    def __init__(self, **keywords: Any) -> None:
        self._keywords = keywords

    @property
    def keywords(self) -> dict[str, Any]:
        """By name."""
        return self._keywords


# NaN and infinity are null in JSON; a plain float is always a number.
AnyFloat = Annotated[float, Keywords(type=["number", "null"])]
Sha256 = Annotated[str, Keywords(pattern="^[0-9a-f]{64}$")]
