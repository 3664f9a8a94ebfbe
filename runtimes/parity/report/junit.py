"""JUnit XML for CI: a suite per model, a test case per artifact, its reasons as the failure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from junitparser import Failure, JUnitXml, TestCase, TestSuite

from edgeproof.files.atomic import write_atomic
from runtimes.parity.report.xml_text import legal
from runtimes.parity.result import Entry, ModelResult


def write_junit(path: Path, results: Sequence[ModelResult]) -> None:
    """Write all models' results. What the plan allows passes, with its reasons as output."""
    document = JUnitXml("edgeproof parity")
    for result in results:
        suite = TestSuite(legal(result.label))
        suite.add_property("text", legal(result.reference.text.name))
        suite.add_property("text sha256", result.reference.text.sha256)
        suite.add_property("positions", str(result.reference.positions))
        for entry in result.entries:
            suite.add_testcase(_case(result.label, entry))
        for item in result.unreadable:
            suite.add_testcase(_failed(result.label, item.folder, "FAIL", item.reason, item.reason))
        document.add_testsuite(suite)
    document.update_statistics()
    write_atomic(path, document.tostring())


def _case(label: str, entry: Entry) -> TestCase:
    verdict = entry.judgement.verdict.value
    text = legal("\n".join((*entry.judgement.reasons, *entry.judgement.notes)))
    if not entry.accepted:
        return _failed(label, entry.name, verdict, entry.judgement.reasons[0], text)
    case = TestCase(legal(entry.name), classname=f"parity.{legal(label)}")
    if text:
        case.system_out = f"{verdict}{' (allowed)' if entry.excused else ''}\n{text}"
    return case


def _failed(label: str, name: str, verdict: str, reason: str, text: str) -> TestCase:
    case = TestCase(legal(name), classname=f"parity.{legal(label)}")
    failure = Failure(f"{verdict}: {legal(reason)}", verdict)
    failure.text = legal(text)
    case.result = [failure]
    return case
