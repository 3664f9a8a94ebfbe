"""The tokens that end a reply: what the artifact's runtimes stop at, against the checkpoint's."""

from __future__ import annotations

from pathlib import Path

from edgeproof.artifact import Artifact
from runtimes.config_facts import end_tokens
from runtimes.formats import reader_of
from runtimes.parity.localise.result import Cause, Finding


def compare_stops(artifact: Artifact, checkpoint: Path) -> tuple[Finding, ...]:
    """A finding where generation would run past the checkpoint's end, or stop before it.

    Raises:
        InputError: a config cannot be read.
    """
    expected = end_tokens(checkpoint)
    if not expected:
        return ()
    stops = reader_of(artifact).stops(artifact)
    if stops.enough(expected):
        return ()
    text = f"{stops.key} is {sorted(stops.tokens)}, the checkpoint's replies end with"
    return (Finding(Cause.METADATA, f"{text} {sorted(expected)}", key=stops.key),)
