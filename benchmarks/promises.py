"""What the project promises, checked where it is measured: one list of what was missed."""

from __future__ import annotations


class Promises:
    """Collects misses; each check returns the text of a table's cell."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def at_most(self, what: str, value: float, limit: float | None) -> str:
        """`value` must not exceed `limit`; without one, nothing is promised."""
        return "" if limit is None else self._cell(what, value, f"≤ {limit:g}", value <= limit)

    def at_least(self, what: str, value: float, limit: float | None) -> str:
        """`value` must reach `limit`; without one, nothing is promised."""
        return "" if limit is None else self._cell(what, value, f"≥ {limit:g}", value >= limit)

    def _cell(self, what: str, value: float, promise: str, kept: bool) -> str:
        if not kept:
            self.missed.append(f"{what}: {value:.4g}, promised {promise}")
        return promise if kept else f"{promise} missed"
