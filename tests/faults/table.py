"""docs/faults.md: every fault, its verdict, where the parity run says that it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from edgeproof.verdicts import Verdict
from tests.faults.alarms import ALARMS, RUNS
from tests.faults.run import Outcome

INTRODUCTION = """\
# Planted faults

Written by `make faults`. Each fault is planted in an export of the bundled model (a tiny one, \
where it
needs biases or an untied head), and the parity run is asked about it, over {positions} \
positions of the
built-in text. `tests/faults/catalogue.py` has the faults and what must be said of each.
"""
# Characters of a localisation that the table shows.
SHOWN = 150


def document(
    outcomes: Sequence[Outcome], alarms: Mapping[str, Counter[Verdict]], positions: int
) -> str:
    """The page, in Markdown."""
    faults = [outcome for outcome in outcomes if outcome.case.fault]
    clean = [outcome for outcome in outcomes if not outcome.case.fault]
    names = dict.fromkeys(outcome.case.fault.name for outcome in faults if outcome.case.fault)
    right = sum(outcome.correct for outcome in faults)
    parts = [
        INTRODUCTION.format(positions=positions),
        f"{len(names)} faults, {len(faults)} exports with one of them: {right} were noticed and"
        " found in the right place.\n",
        "| fault | format | verdict | where | right |",
        "|---|---|---|---|---|",
        *(_row(outcome) for outcome in faults),
        "\n## Clean exports\n",
        "| export | verdict | mean KL |",
        "|---|---|---|",
        *(_clean_row(outcome) for outcome in clean),
        f"\n{RUNS} runs, each over a random half of the documents:\n",
        "| export | PASS | INCONCLUSIVE | false alarms |",
        "|---|---|---|---|",
        *(_alarm_row(name, verdicts) for name, verdicts in alarms.items()),
        "\n## What each fault is\n",
        *(f"- **{name}**: {what}." for name, what in _explained(faults).items()),
    ]
    return "\n".join(parts) + "\n"


def _explained(outcomes: Sequence[Outcome]) -> dict[str, str]:
    faults = (outcome.case.fault for outcome in outcomes)
    return {fault.name: fault.what for fault in faults if fault}


def _row(outcome: Outcome) -> str:
    name = outcome.case.fault.name if outcome.case.fault else ""
    right = "yes" if outcome.correct else "**no**"
    cells = (name, outcome.entry.name, outcome.verdict.value, _escaped(outcome.where), right)
    return f"| {' | '.join(cells)} |"


def _clean_row(outcome: Outcome) -> str:
    measurement = outcome.entry.measurement
    kl = f"{measurement.estimates['mean_kl'].value:.2g}" if measurement else "–"
    return f"| {outcome.entry.name} | {outcome.verdict.value} | {kl} |"


def _alarm_row(name: str, verdicts: Counter[Verdict]) -> str:
    alarms = sum(verdicts[verdict] for verdict in ALARMS)
    counts = (verdicts[Verdict.PASS], verdicts[Verdict.INCONCLUSIVE], alarms)
    return f"| {name} | {' | '.join(map(str, counts))} |"


def _escaped(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
