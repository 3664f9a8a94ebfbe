"""What parity runs found, as their readers need it: `parity.json` and `elsewhere.json`."""

from edgeproof.verdicts.elsewhere import (
    ELSEWHERE,
    ShortRun,
    read_short_runs,
    write_short_runs,
)
from edgeproof.verdicts.limits import METRICS, RUNTIME_CLASSES
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
    "ELSEWHERE",
    "METRICS",
    "PAGE",
    "REPORT",
    "RUNTIME_CLASSES",
    "SCHEMA",
    "Compared",
    "Interval",
    "Key",
    "ParityReport",
    "Recommendation",
    "ShortRun",
    "Verdict",
    "metrics_json",
    "read_report",
    "read_short_runs",
    "write_short_runs",
]
