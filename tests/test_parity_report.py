"""The reports of a parity run: JSON by its schema, JUnit, Markdown and the page."""

from __future__ import annotations

import html
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from junitparser import JUnitXml
from rich.console import Console

from edgeproof.artifact import Precision
from edgeproof.verdicts import Verdict
from runtimes.parity.gates import GATES
from runtimes.parity.intervals import Estimate
from runtimes.parity.long_range import LongRange
from runtimes.parity.replies import reply_texts
from runtimes.parity.report.html import page, visible
from runtimes.parity.report.json import write_json
from runtimes.parity.report.junit import write_junit
from runtimes.parity.report.markdown import markdown
from runtimes.parity.report.outputs import write_summaries
from runtimes.parity.report.terminal import print_result
from runtimes.parity.result import ModelResult, smallest_passing
from runtimes.parity.statistics import log_histogram
from runtimes.parity.suite import Document
from runtimes.parity.verdict import judge
from tests.parity_results import HOSTILE, entry, hostile_result, measurement, result, usual_result

SCHEMA_FILE = Path(__file__).parent.parent / "docs/parity.schema.json"


@pytest.fixture(scope="module")
def usual() -> ModelResult:
    return usual_result()


@pytest.fixture(scope="module")
def hostile() -> ModelResult:
    return hostile_result()


@pytest.fixture(scope="module")
def usual_page(usual: ModelResult) -> str:
    return page(usual)


@pytest.fixture(scope="module")
def hostile_page(hostile: ModelResult) -> str:
    return page(hostile)


def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_json_keeps_to_the_schema_whatever_happened(
    usual: ModelResult, hostile: ModelResult, tmp_path: Path
) -> None:
    for item in (usual, hostile):
        write_json(tmp_path / "parity.json", item)
        validator().validate(json.loads((tmp_path / "parity.json").read_text("utf-8")))


def test_n_is_shown_where_it_is_not_the_whole_texts() -> None:
    stopped = replace(measurement(), whole_text=False, positions=1712)
    entries = [
        entry("q4_0", Verdict.DEGRADED, allowed=True, measured=stopped),
        entry("q8_0", Verdict.PASS, 2000, measured=measurement(0.01)),
    ]
    terminal = io.StringIO()
    print_result(Console(width=200, file=terminal), result(*entries))
    for text in (terminal.getvalue(), markdown([result(*entries)])):
        bad, good = (
            next(line for line in text.splitlines() if name in line and verdict.value in line)
            for name, verdict in (("gguf q4", Verdict.DEGRADED), ("gguf q8", Verdict.PASS))
        )
        assert "n = 1,712" in bad
        assert "n = " not in good
        assert "its gate, n = 1,712" in " ".join(text.split())
    text = page(result(*entries))
    assert text.count("n = 1,712") >= 3  # verdicts, what few bits cost, its own section
    assert "The first 1,712 positions by their KL" in text
    assert "All 5 positions by their KL" in text


def test_junit_fails_what_the_run_refuses_and_passes_what_is_allowed(
    usual: ModelResult, tmp_path: Path
) -> None:
    write_junit(tmp_path / "parity.xml", [usual, usual])
    document = JUnitXml.fromfile(str(tmp_path / "parity.xml"))
    assert (document.tests, document.failures) == (10, 6)
    cases = {case.name: case for case in next(iter(document))}
    assert cases["gguf q8_0"].is_passed
    assert cases["gguf q4_1"].is_passed
    assert "DEGRADED (allowed)" in cases["gguf q4_1"].system_out
    (failure,) = cases["gguf f16"].result
    assert failure.type == "FAIL"
    assert "second reason" in failure.text
    assert not cases["gguf q5_0"].is_passed


def test_hostile_names_stay_text_in_junit(hostile: ModelResult, tmp_path: Path) -> None:
    write_junit(tmp_path / "parity.xml", [hostile])
    (suite,) = JUnitXml.fromfile(str(tmp_path / "parity.xml"))
    assert suite.name == HOSTILE.replace("\x1b", "\ufffd")


def test_markdown_is_appended_to_the_step_summary(usual: ModelResult, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    write_summaries([usual], None, tmp_path / "parity.md", summary)
    written = (tmp_path / "parity.md").read_text("utf-8")
    assert summary.read_text("utf-8") == f"before\n{written}"
    assert "Smallest that passes: **gguf q8\\_0**" in written
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(usual.entries)
    assert len({line.count(" | ") for line in rows}) == 1
    assert "SHA\\-256 differs" in written


def test_hostile_names_stay_text_in_markdown(hostile: ModelResult) -> None:
    text = markdown([hostile])
    assert "<" not in text
    assert not re.search(r"(?<!\\)[`$]", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


class Elements(HTMLParser):
    """Every element of a page with its attributes, and all its text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Elements:
    parser = Elements()
    parser.feed(text)
    parser.close()
    return parser


@pytest.mark.parametrize("case", ["usual_page", "hostile_page"])
def test_the_page_has_no_script_and_loads_nothing(
    case: str, request: pytest.FixtureRequest
) -> None:
    text = request.getfixturevalue(case)
    found = parsed(text)
    assert {tag for tag, _ in found.elements}.isdisjoint(
        {"script", "img", "iframe", "object", "embed", "base", "form"}
    )
    for tag, attributes in found.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert "src" not in attributes
        target = attributes.get("href", attributes.get("xlink:href"))
        assert target is None or target.startswith(("#", "data:,")), (tag, target)
    assert not re.search(r"@import|url\((?!#)", text)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_hostile_text_is_shown_as_it_is(hostile_page: str) -> None:
    found = parsed(hostile_page)
    assert HOSTILE in found.text
    assert f"Parity of {HOSTILE}" in found.text
    assert "<script" not in hostile_page


def test_the_page_shows_what_to_ship_first_and_marks_the_diverging_token(
    usual: ModelResult, usual_page: str
) -> None:
    order = [usual_page.index(f'id="{name}"') for name in ("ship", "size", "verdicts", "exports")]
    assert order == sorted(order)
    for item in usual.entries:
        assert f">{item.name}<" in usual_page
    assert "<mark>onea</mark>" in usual_page
    assert "<mark>two</mark>" in usual_page
    assert "SHA-256 differs" in usual_page
    assert "Where 4 bits hurt" in usual_page


def test_the_page_shows_every_kind_of_measurement(usual_page: str) -> None:
    text = " ".join(html.unescape(re.sub("<[^>]+>", " ", usual_page)).split())
    for words in (
        "0 of 4 prompts differ",  # chat template
        "left-padded batch KL 1.0e-09 to the rows alone",
        "long range KL 2.0e-03 at the last 256 of 2,048 tokens, at most 0.010",
        "peak memory 200 MB; load 0.1 s, reading 1000 and writing 50 tokens/s"
        " (600 and 26 per CPU second; medians of 3 runs on 2 threads)",
        "How the replies read",
        "greedy, PyTorch’s own 10.0 8.0 100 3.00",
        "rms_logit_difference 0.500 0.250–1.000",
        "largest logit difference 1.000",
        "fallback 0 % of the weights",
    ):
        assert words in text, words


def test_weights_that_nobody_could_read_are_not_called_exact() -> None:
    for exact in (True, False):
        made = entry("q4", Verdict.PASS, measured=replace(measurement(), exact_weights=exact))
        assert (">exact<" in page(result(made))) == exact


def test_a_context_that_is_too_short_for_the_long_text_is_said() -> None:
    short = LongRange(2048, 0, math.inf, 0.01)
    made = entry("q4", Verdict.FAIL, measured=replace(measurement(), long_range=short))
    assert "a text of 2,048 tokens does not fit" in page(result(made))


def test_speeds_of_a_busy_machine_are_marked_everywhere() -> None:
    m = measurement()
    assert m.footprint is not None
    busy = replace(m, footprint=replace(m.footprint, disturbed=True, other_cores=1.3))
    for disturbed in (False, True):
        run = result(
            entry("q8_0", Verdict.PASS, measured=busy if disturbed else m),
            entry("q4_0", Verdict.PASS, measured=m),
        )
        console = Console(width=400, record=True, file=io.StringIO())
        print_result(console, run)
        for text in (console.export_text(), markdown([run]).replace("\\", "")):
            assert ("took up to 1.3 cores" in text) == disturbed
            assert ("too low: gguf q8_0\n" in text) == disturbed
            assert ("50*/26" in text) == disturbed
            assert "50/26" in text
        assert ("its 2 threads had too few" in page(run)) == disturbed


def test_what_one_document_cannot_tell_is_a_dash(tmp_path: Path) -> None:
    unknown = {
        name: Estimate(one.value, math.nan, math.nan)
        for name, one in measurement().estimates.items()
    } | dict.fromkeys(("clear_top1", "perplexity_ratio"), Estimate.exact(math.nan))
    measured = replace(measurement(), estimates=unknown)
    short = result(entry("q8_0", Verdict.INCONCLUSIVE, measured=measured))
    text = parsed(page(short)).text
    console = Console(width=400, record=True, file=io.StringIO())
    print_result(console, short)
    for report in (text, markdown([short]), console.export_text()):
        assert "nan" not in report.lower().split()
    write_json(tmp_path / "parity.json", short)
    validator().validate(json.loads((tmp_path / "parity.json").read_text("utf-8")))


def test_a_count_is_shown_with_what_it_may_hide(tmp_path: Path) -> None:
    clear = Estimate(1.0, 0.993, 1.0, 2929, 425.0)
    estimates = {**measurement(1e-9).estimates, "clear_top1": clear}
    gates = GATES[Precision.FP32]
    judged = judge(estimates, None, gates, ())
    assert judged.verdict is Verdict.PASS
    made = entry("f32", Verdict.PASS, measured=replace(measurement(), estimates=estimates))
    exact = result(replace(made, gates=gates, judgement=judged))
    console = Console(width=400, record=True, file=io.StringIO())
    print_result(console, exact)
    shown = "0 of 2,929 (95 % upper bound 0.7 %)"
    text = " ".join(parsed(page(exact)).text.split())
    gate = "no error of clear_top1 in at least 1,000 positions"
    assert f"{gate} {shown} rounding as fine as this" in text
    for report in (text, console.export_text(), markdown([exact])):
        assert f"errors in {shown}" in report.replace("\\", "")
    write_json(tmp_path / "parity.json", exact)
    validator().validate(json.loads((tmp_path / "parity.json").read_text("utf-8")))


def test_the_page_is_the_same_for_the_same_result(usual_page: str) -> None:
    assert page(usual_result()) == usual_page


def test_a_run_in_which_nothing_could_be_opened_has_a_page() -> None:
    text = page(result(entry("f16", Verdict.FAIL)))
    assert "No export passes all its gates" in text
    assert "<svg" not in text


def test_the_smallest_that_passes_is_recommended(usual: ModelResult) -> None:
    best = smallest_passing(usual.entries)
    assert best is usual.entries[0]
    small = replace(best, artifact=entry("q6", Verdict.PASS, 10).artifact)
    assert smallest_passing((*usual.entries, small)) is small


@pytest.mark.parametrize(
    ("reference", "export", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], ("a b c", "", "", "", "")),
        ([0, 1, 2], [0, 3, 1], ("a", " b", " c", " d", " b")),
        # Both bytes of ü are tokens; the replies part between them.
        ([0, 10, 11, 1], [0, 10, 12, 1], ("a", "ü", " b", "ý", " b")),
    ],
)
def test_replies_are_cut_at_the_first_differing_token(
    reference: list[int], export: list[int], expected: tuple[str, ...]
) -> None:
    pieces = {0: b"a", 1: b" b", 2: b" c", 3: b" d", 10: b"\xc3", 11: b"\xbc", 12: b"\xbd"}

    def detokenize(ids: object) -> str:
        return b"".join(pieces[i] for i in ids).decode("utf-8", "replace")  # type: ignore[attr-defined]

    document = Document("d", "chat", (0,) * 1003, 1000)
    reply = reply_texts(document, reference, export, {2}, detokenize)
    found = (
        reply.same, reply.reference_token, reply.reference_rest, reply.export_token,
        reply.export_rest,
    )  # fmt: skip
    assert found == expected
    assert len(reply.prompt) < 500
    assert (reply.reference_cut, reply.export_cut) == (reference[-1] != 2, export[-1] != 2)


def test_invisible_tokens_are_seen() -> None:
    assert visible("  ") == "␣␣"
    assert visible("\n") == "↵\n"
    assert visible(" word") == " word"


def test_the_histogram_counts_every_position() -> None:
    values = np.array([-1e-17, 0.0, 1e-12, 3e-4, 0.5, 0.5, 20.0])
    histogram = log_histogram(values)
    assert sum(histogram.counts) == len(values)
    assert histogram.counts[0] == 3
    assert histogram.counts[-1] == 1
    for low, high, count in zip(
        histogram.edges[1:], histogram.edges[2:], histogram.counts[1:], strict=False
    ):
        assert count == ((values >= low) & (values < high)).sum()


def test_every_report_says_where_an_export_breaks(usual: ModelResult) -> None:
    broken = next(entry for entry in usual.entries if entry.localisation)
    console = Console(width=400, record=True, file=io.StringIO())
    print_result(console, usual)
    where = "cause: graph: wrong at layer 1"
    assert where in console.export_text()
    assert "cause: graph: wrong at layer 1" in markdown([usual]).replace("\\", "")
    text = page(usual)
    assert text.index(f'<span class="name">{broken.name}</span>', text.index("Where it breaks"))
    assert "wrong at layer 1" in text
    assert "Relative error by layer" in text
