"""What parity runs found, as their readers need it: `parity.json` and what lies beside it."""

from edgeproof.verdicts.elsewhere import (
    ELSEWHERE,
    ShortRun,
    read_short_runs,
    write_short_runs,
)
from edgeproof.verdicts.evaluation import (
    EVALUATION,
    Beside,
    Score,
    TaskScore,
    read_scores,
    scores_of,
    write_scores,
)
from edgeproof.verdicts.limits import METRICS, RUNTIME_CLASSES
from edgeproof.verdicts.receipt import (
    RECEIPT,
    SIGNATURE_FILES,
    Audited,
    DamagedEntry,
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
    "EVALUATION",
    "METRICS",
    "PAGE",
    "RECEIPT",
    "REPORT",
    "RUNTIME_CLASSES",
    "SCHEMA",
    "SIGNATURE_FILES",
    "Audited",
    "Beside",
    "Compared",
    "DamagedEntry",
    "HubCommit",
    "Interval",
    "Key",
    "ParityReport",
    "Receipt",
    "Recommendation",
    "Score",
    "ShortRun",
    "TaskScore",
    "Unreadable",
    "Verdict",
    "metrics_json",
    "read_receipt",
    "read_report",
    "read_scores",
    "read_short_runs",
    "receipt_bytes",
    "scores_of",
    "write_scores",
    "write_short_runs",
]
