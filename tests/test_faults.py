"""The instrument notices planted faults, says where they are, and leaves clean exports alone.

`make faults` asks the same of every fault in every format on the real model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproof.verdicts import Verdict
from export.sources import resolve
from runtimes.parity import statistics, tokenizer
from runtimes.parity.suite import Budget, Prompt, Suite, built_in
from tests.caches import new_cache
from tests.faults import alarms
from tests.faults.__main__ import PAGE, POSITIONS, ROWS
from tests.faults.alarms import verdicts_on_subsets
from tests.faults.catalogue import FAULTS
from tests.faults.fault import FORMATS, FOUR_BIT
from tests.faults.noticed import By
from tests.faults.planting import export
from tests.faults.records import Record, Records
from tests.faults.run import Case, Outcome, run_cases
from tests.faults.selection import at_run_time, everything
from tests.faults.table import document, label
from tests.tiny import FAMILIES, long_texts, make_checkpoint

TEXTS = ("chat-01", "code-02", "arithmetic-01", "unicode-03")
SUITE = Suite("short", tuple(p for p in built_in(Budget.FAST).prompts if p.id in TEXTS))
CLEAN = [Case(form) for form in FORMATS]


def in_turn() -> list[Case]:
    """Every fault in one of its formats, each format in its turn.

    It begins with GGUF: so MLC is spared the faults that TVM would have to compile anew for.
    """
    cases = []
    for index, fault in enumerate(FAULTS, 1):
        forms = [form for form in FORMATS if form in fault.plants]
        cases.append(Case(forms[index % len(forms)], fault))
    return cases


# `make faults` has the others, on the real model: each needs a run of its own.
SET = ("TVM: cache moved", "llama.cpp: context shifted early", "llama.cpp: nothing offloaded")
RUN_TIME = [case for case in at_run_time() if case.fault and case.fault.name in SET]
LOST = {fault.name: fault for fault in FAULTS}["truncated vocabulary"]
# Alike in all types but for what rounding allows.
LOW = [Case("gguf", None, FOUR_BIT["gguf"]), Case("gguf", LOST, FOUR_BIT["gguf"])]
CASES = [*CLEAN, *in_turn(), *LOW, *RUN_TIME]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    folder = tmp_path_factory.mktemp("faults")
    models: dict[str | None, Path] = {None: make_checkpoint(folder / "usual")}
    for family in {fault.model for fault in FAULTS if fault.model}:
        models[family] = make_checkpoint(folder / family, **FAMILIES[family])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        patch.setattr(tokenizer, "COUNT", 100)
        patch.setattr(statistics, "RESAMPLES", 200)
        found = run_cases(CASES, models, SUITE, None, folder / "planted", 1)
        yield {label(outcome.case): outcome for outcome in found}


def test_there_are_faults_for_every_format() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 15
    for form in FORMATS:
        assert sum(form in fault.plants for fault in FAULTS) >= 15


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_fault_is_noticed_and_found_and_a_clean_export_passes(
    outcomes: dict[str, Outcome], case: Case
) -> None:
    outcome = outcomes[label(case)]
    assert outcome.correct, (outcome.verdict, outcome.where)


# What must have seen them, and whether the gates alone would have.
NOTICED = {
    "wrong eps": (By.METADATA, False),
    "no digit splitting": (By.TOKENIZER, False),
    "space in the template": (By.TEMPLATE, False),
    "left padding visible": (By.BEHAVIOUR, False),
    "swapped layers": (By.BYTES, True),
    "TVM: cache moved": (By.BEHAVIOUR, True),
}


def test_the_page_says_what_noticed_a_fault_and_what_the_gates_would_have(
    outcomes: dict[str, Outcome], tmp_path: Path
) -> None:
    records = Records(tmp_path / "rows.jsonl")
    for outcome in outcomes.values():
        records.add(Record.of(outcome, "abc"))
    known = records.cases()
    assert not records.missing(CASES, "abc")
    assert records.missing(CASES, None) == []
    assert len(records.missing(CASES, "another")) == len(CASES)
    page = document([(case, known[case.key]) for case in CASES], {}, 300, len(CASES) + 5)
    for name, (kind, caught) in NOTICED.items():
        (row,) = (row for row in page.splitlines() if row.startswith(f"| {name} |"))
        _, _, _, _, by, gates, *_ = (cell.strip() for cell in row.split("|"))
        assert kind.value in by.split(", "), row
        assert gates.startswith("yes" if caught else "no"), row
    faulty = [case for case in CASES if case.faulty]
    assert f"{len(faulty)} exports or runs with one of them: {len(faulty)} were noticed" in page
    assert "at revision abc. Not measured yet: 5 more." in page
    (lost,) = (
        row for row in page.splitlines() if row.startswith("| truncated vocab") and "q4_0" in row
    )
    assert "| as clean |" in lost


def test_the_page_is_what_the_kept_rows_say() -> None:
    records, wanted = Records(ROWS), everything()
    written = document(records.of(wanted), records.alarms(), POSITIONS, len(wanted))
    assert PAGE.read_text("utf-8") == written


def test_no_two_rows_of_the_page_are_of_one_case() -> None:
    cases = everything()
    assert len({case.key for case in cases}) == len({label(case) for case in cases}) == len(cases)


def test_a_clean_export_passes_on_every_part_of_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "RUNS", 3)
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    artifact = export(checkpoint, "gguf", tmp_path / "out", CLEAN[0].plant)
    prompts = (Prompt(str(index), "text", text) for index, text in enumerate(long_texts(16)))
    suite = Suite("long", tuple(prompts))
    (verdicts,) = verdicts_on_subsets(checkpoint, suite, [artifact], 1).values()
    assert verdicts == {Verdict.PASS: 3}


# One fault of the weights, one of the metadata, one of the tokenizer, in a format each.
REAL = {"onnx": "swapped q/k", "gguf": "wrong rope theta", "mlc": "no digit splitting"}


@pytest.mark.slow
def test_faults_in_the_real_model_are_found(tmp_path: Path) -> None:
    chosen = [
        Case(form, fault) for form, name in REAL.items() for fault in FAULTS if fault.name == name
    ]
    real = {None: resolve("bundled").path}
    for outcome in run_cases(chosen, real, built_in(Budget.FAST), 200, tmp_path / "planted", 2):
        assert outcome.correct, (outcome.case, outcome.verdict, outcome.where)
