"""Why an artifact is broken that holds other metadata or weights than the checkpoint.

Text shows what it touches. A row of a token that no text has, a scale that is off by two among
millions, or an ε that the activations drown would pass every gate, and still be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.parity.localise.result import Finding


def stored_faults(findings: Sequence[Finding]) -> list[str]:
    """At most one line, on findings of one cause: the first, and how many more there are."""
    if not findings:
        return []
    first, *others = findings
    more = f" (and {len(others)} more)" if others else ""
    return [f"{first.cause.value}: {first.text}{more}"]
