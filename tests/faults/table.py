"""docs/faults.md: every fault, its verdict, what noticed it, where the parity run says it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from edgeproof.verdicts import Verdict
from tests.faults.alarms import RUNS
from tests.faults.fault import FOUR_BIT
from tests.faults.noticed import By
from tests.faults.records import Alarms, Record
from tests.faults.run import Case

# A case and what came of it.
Row = tuple[Case, Record]

INTRODUCTION = """\
# Planted faults

Written by `make faults`, every number and the list of what is missing too. Each fault is planted \
in an export, and the
parity run is asked about it, over {positions} positions of the built-in text. The models are \
SmolLM2-135M (the bundled
one) and, named in the table, tiny generated ones; the limits are the same for all. \
`tests/faults` has the faults and what
must be said of each.
"""
BY = """\
**Noticed by** lists all that saw something: the *bytes* of weights, *metadata* and attributes, \
*tokenizer* and *template*
compared with the checkpoint's, or *behaviour* in the runtime: logits, steps, batches, or that \
it does not run. **Gates**
is what the limits on the text's metrics alone would have said: a tool that only compares \
outputs on this text says the
same. In 4-bit types a clean export may miss them too, and they tell nothing ("as clean").
"""
AT_RUN_TIME = """\
A fault *in the runtime* is in no file: the adapter asks llama.cpp or TVM for something else than \
it does for users.
"""
# Characters of a localisation that the table shows.
SHOWN = 150
CAUGHT = (Verdict.FAIL, Verdict.DEGRADED)


def label(case: Case) -> str:
    """A case in a line."""
    name = case.fault.name if case.fault else "clean"
    return f"{name}, {_export(case)}"


def document(rows: Sequence[Row], alarms: Mapping[str, Alarms], positions: int, wanted: int) -> str:
    """The page, in Markdown; `wanted` rows would be all."""
    faulty = [row for row in rows if row[0].faulty]
    several = len({record.revision for _, record in rows}) > 1
    told = {record.key: _gates_tell(record, rows) for _, record in faulty}
    parts = [
        INTRODUCTION.format(positions=positions),
        *_headline(faulty, told),
        "",
        BY,
        *_measured([record for _, record in rows], wanted - len(rows)),
        "\n## Faults\n",
        "| fault | export | verdict | noticed by | gates | where | right |"
        + " measured |" * several,
        "|---|---|---|---|---|---|---|" + "---|" * several,
        *(
            _row(case, record, told[record.key]) + f" {record.revision} |" * several
            for case, record in faulty
        ),
        "\n" + AT_RUN_TIME,
        "\n## What is no fault\n",
        "Clean exports, and settings of a runtime that do no harm.\n",
        "| export | setting | verdict | mean KL | right |",
        "|---|---|---|---|---|",
        *(_clean_row(case, record) for case, record in rows if not case.faulty),
        *_alarms(alarms.values()),
        "\n## What each fault is\n",
        *(f"- **{name}**: {what}." for name, what in _explained(rows).items()),
    ]
    return "\n".join(parts) + "\n"


def _headline(rows: Sequence[Row], told: Mapping[tuple[str, ...], bool | None]) -> list[str]:
    """What the table comes to."""
    names = {case.fault.name for case, _ in rows if case.fault}
    right = sum(record.right for _, record in rows)
    by = Counter(kind for _, record in rows for kind in _by(record, told[record.key]))
    alone = sum(_by(record, told[record.key]) == (By.BEHAVIOUR,) for _, record in rows)
    gates = sum(told[record.key] is True for _, record in rows)
    groups = {
        "on a second model": sum(case.on is not None for case, _ in rows),
        "in 4-bit types": sum(_four_bit(case) for case, _ in rows),
        "in the runtime alone": sum(case.plant.runtime is not None for case, _ in rows),
    }
    return [
        f"**{len(names)} faults, {len(rows)} exports or runs with one of them: {right} were noticed"
        f" and found in the right place. The gates alone would have noticed {gates}.**",
        "Of these " + ", ".join(f"{count} {what}" for what, count in groups.items()) + ".",
        "Noticed by " + ", ".join(f"{kind.value} {by[kind]}" for kind in By) + " (several may see"
        f" the same fault); {alone} by behaviour alone.",
    ]


def _measured(records: Sequence[Record], missing: int) -> list[str]:
    """Which code the rows are of, and whether all are there."""
    runs = Counter((record.date, record.revision) for record in records)
    counts = [f"{n} on {day} at revision {code}" for (day, code), n in sorted(runs.items())]
    text = f"Rows: {'; '.join(counts)}." if counts else "No row was measured."
    return [text + (f" Not measured yet: {missing} more." if missing else "")]


def _by(record: Record, gates: bool | None) -> tuple[By, ...]:
    kinds = {*record.by, *([By.BEHAVIOUR] if gates else [])}
    return tuple(kind for kind in By if kind in kinds)


def _gates_tell(record: Record, rows: Sequence[Row]) -> bool | None:
    """Whether the gates alone notice it; None where they say of a clean export what they say here.

    What did not run was judged by nothing, and so by no gate.
    """
    caught = record.gates in CAUGHT
    clean = next((row for _, row in rows if row.key == (*record.key[:3], "")), None)
    return None if caught and clean and clean.gates in CAUGHT else caught


def _four_bit(case: Case) -> bool:
    return case.stored == FOUR_BIT[case.form]


def _row(case: Case, record: Record, gates: bool | None) -> str:
    name = case.fault.name if case.fault else ""
    by = ", ".join(kind.value for kind in _by(record, gates)) or "–"
    said = "as clean" if gates is None else _said(record)
    right = "yes" if record.right else "**no**"
    cells = (name, _export(case), record.verdict.value, by, said, _escaped(record.where), right)
    return f"| {' | '.join(cells)} |"


def _said(record: Record) -> str:
    if record.gates is None:
        return "not run"
    return {Verdict.PASS: "no", Verdict.INCONCLUSIVE: "no (open)"}.get(record.gates, "yes")


def _clean_row(case: Case, record: Record) -> str:
    kl = "–" if record.mean_kl is None else f"{record.mean_kl:.2g}"
    setting = case.fault.name if case.fault else "–"
    right = "yes" if record.right else "**no**"
    return f"| {' | '.join((_export(case), setting, record.verdict.value, kl, right))} |"


def _alarms(alarms: Iterable[Alarms]) -> list[str]:
    rows = [
        f"| {alarm.name} | {alarm.count(Verdict.PASS)} | {alarm.count(Verdict.INCONCLUSIVE)} |"
        f" {alarm.false} | {alarm.date}, {alarm.revision} |"
        for alarm in alarms
    ]
    if not rows:
        return ["\nFalse alarms on parts of the text were not measured yet."]
    return [
        f"\n{RUNS} runs, each over a random half of the default text's documents (positions"
        " measured once, intervals and verdicts anew for each half):\n",
        "| export | PASS | INCONCLUSIVE | false alarms | measured |",
        "|---|---|---|---|---|",
        *rows,
    ]


def _explained(rows: Sequence[Row]) -> dict[str, str]:
    faults = (case.fault for case, _ in rows)
    return {fault.name: fault.what for fault in faults if fault}


def _export(case: Case) -> str:
    options = "".join(f"-{value}" for value in case.plant.options.values())
    return f"{case.form} {case.stored}{options}" + (f", tiny {case.model}" if case.model else "")


def _escaped(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
