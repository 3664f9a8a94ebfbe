"""How an artifact can come out, and which of these a plan may accept."""

from __future__ import annotations

from enum import Enum


class Verdict(str, Enum):
    """How an artifact came out; its text is what reports and releases write."""

    PASS = "PASS"
    DEGRADED = "DEGRADED"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"

    def __str__(self) -> str:
        return self.value

    @property
    def permissible(self) -> bool:
        """Whether the file works, so that a plan decides whether it is good enough."""
        return self in (Verdict.DEGRADED, Verdict.INCONCLUSIVE)

    def accepted(self, *, allow_degraded: bool) -> bool:
        """Whether a plan that says so, or does not, takes it."""
        return allow_degraded if self.permissible else self is Verdict.PASS
