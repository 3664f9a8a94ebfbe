"""What parity runs found, as their readers need it: `parity.json`, `elsewhere.json`, receipts."""

from edgeproof.verdicts.elsewhere import (
    ELSEWHERE,
    ShortRun,
    read_short_runs,
    write_short_runs,
)
from edgeproof.verdicts.limits import METRICS, RUNTIME_CLASSES
from edgeproof.verdicts.receipt import (
    RECEIPT,
    SIGNATURE_FILES,
    Audited,
    Damaged,
    HubCommit,
    Receipt,
    read_receipt,
    receipt_bytes,
)
from edgeproof.verdicts.report import (
    PAGE,
    REPORT,
    SCHEMA,
    Compared,
    Interval,
    Key,
    ParityReport,
    Recommendation,
    Unreadable,
    metrics_json,
    read_report,
)
from edgeproof.verdicts.verdict import Verdict

__all__ = [
    "ELSEWHERE",
    "METRICS",
    "PAGE",
    "RECEIPT",
    "REPORT",
    "RUNTIME_CLASSES",
    "SCHEMA",
    "SIGNATURE_FILES",
    "Audited",
    "Compared",
    "Damaged",
    "HubCommit",
    "Interval",
    "Key",
    "ParityReport",
    "Receipt",
    "Recommendation",
    "ShortRun",
    "Unreadable",
    "Verdict",
    "metrics_json",
    "read_receipt",
    "read_report",
    "read_short_runs",
    "receipt_bytes",
    "write_short_runs",
]
