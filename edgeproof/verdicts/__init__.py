"""What a parity run found, as its readers need it: `parity.json`, described once."""

from edgeproof.verdicts.report import (
    PAGE,
    REPORT,
    SCHEMA,
    Compared,
    Interval,
    Key,
    ParityReport,
    Recommendation,
    metrics_json,
    read_report,
)
from edgeproof.verdicts.verdict import Verdict

__all__ = [
    "PAGE",
    "REPORT",
    "SCHEMA",
    "Compared",
    "Interval",
    "Key",
    "ParityReport",
    "Recommendation",
    "Verdict",
    "metrics_json",
    "read_report",
]
