"""Where an export breaks, as lines of text for every report."""

from __future__ import annotations

from runtimes.parity.localise.result import Cause, Localisation

# Findings after the first that are listed.
MORE = 3


def where_lines(localisation: Localisation | None) -> list[str]:
    """The cause, and what else was found; nothing where nobody looked."""
    if localisation is None:
        return []
    first, *others = localisation.findings
    lines = [f"cause: {first.cause.value}: {first.text}"]
    lines += [f"also: {item.cause.value}: {item.text}" for item in others[:MORE]]
    if len(others) > MORE:
        lines.append(f"also: {len(others) - MORE} more, in the JSON")
    return lines


def broken(localisation: Localisation) -> bool:
    """Whether something is wrong, not only rounded."""
    return localisation.cause.cause not in (Cause.ROUNDING, Cause.NONE)
