"""What noticed a fault: what a file stores, or how it behaves; and what the gates alone would say.

The gates' limits are `runtimes.parity.gates`', the same for every model and every type.
"""

from __future__ import annotations

from enum import Enum

from edgeproof.verdicts import Verdict
from runtimes.parity.localise import Cause
from runtimes.parity.result import Entry
from runtimes.parity.verdict import judge


class By(str, Enum):
    """What two things were compared, in the order of the table."""

    BYTES = "bytes"  # stored weights with the checkpoint's
    METADATA = "metadata"  # keys and attributes with what the checkpoint implies
    TOKENIZER = "tokenizer"  # its model, and what it makes of strings
    TEMPLATE = "template"  # rendered chats
    BEHAVIOUR = "behaviour"  # logits, steps and batches in the runtime, or that it does not run


OF_CAUSE = {
    Cause.WEIGHTS: By.BYTES,
    Cause.METADATA: By.METADATA,
    Cause.TOKENIZER: By.TOKENIZER,
    Cause.TEMPLATE: By.TEMPLATE,
}
STRINGS = "strings tokenize differently"


def gates_alone(entry: Entry) -> Verdict | None:
    """The verdict of the text's metrics, had nothing else been compared; None: it did not run."""
    m = entry.measurement
    return judge(m.estimates, m.weights, entry.gates, ()).verdict if m else None


def noticed_by(entry: Entry) -> tuple[By, ...]:
    """Every comparison but the gates' that saw something wrong, whichever the verdict names."""
    m, found = entry.measurement, entry.localisation
    reasons = m.failures if m else entry.judgement.reasons
    kinds = {_kind(reason) for reason in reasons}
    causes = [finding.cause for finding in found.findings] if found else []
    kinds |= {OF_CAUSE[cause] for cause in causes if cause in OF_CAUSE}
    return tuple(kind for kind in By if kind in kinds)


def _kind(reason: str) -> By:
    if STRINGS in reason:
        return By.TOKENIZER
    stored = (kind for cause, kind in OF_CAUSE.items() if reason.startswith(f"{cause.value}: "))
    return next(stored, By.BEHAVIOUR)
