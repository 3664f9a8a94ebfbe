"""How often a run that may stop early is wrong, and how much of the text it reads.

The looks are those of the parity run. An artifact that is exactly as bad as its gate allows should
be called DEGRADED, or PASS, in at most 2.5 of 100 texts each, and the interval that is printed in
the end, wherever the run stopped, should hold the truth in 95.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.simulated_text import SEED, Case, estimate, simulated
from edgeproof.display import markdown_row
from edgeproof.verdicts import Verdict
from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.gates import Gate
from runtimes.parity.intervals import Estimate
from runtimes.parity.looks import parts
from runtimes.parity.verdict import judge

DOCUMENTS = 58  # as the default text
TITLES = (
    "gate", "gathering", "truth", "DEGRADED", "whole text", "PASS", "whole text",
    "interval holds it", "whole text", "positions read",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Texts of one kind, and the gate that is asked."""

    case: Case
    gate: Gate
    truth: str

    @property
    def value(self) -> float:
        """What is true."""
        return 1.0 if self.case.truth is None else self.case.truth


@dataclass(frozen=True)
class Found:
    """Where a run stopped: its interval, its verdict, and the share of positions that it read."""

    estimate: Estimate
    verdict: Verdict
    read: float


def _kl(gathering: float, times: float) -> Run:
    """Texts whose mean KL is so many times its limit."""
    return Run(
        Case(DOCUMENTS, None, gathering), Gate("mean_kl", 1 / times, ""), f"{times:g} × limit"
    )


def _share(gathering: float, truth: float) -> Run:
    gate = Gate("clear_top1", 0.97, "", at_least=True)
    return Run(Case(DOCUMENTS, truth, gathering), gate, f"{100 * truth:g} %")


RUNS = (
    *(_kl(gathering, times) for gathering in (0.5, 1.0) for times in (0.5, 1, 1.5, 2, 8)),
    *(_share(gathering, truth) for gathering in (0.5, 1.0) for truth in (0.99, 0.97, 0.95, 0.85)),
)


def table(runs: int) -> Iterator[str]:
    """Markdown lines, of so many texts for each row."""
    yield markdown_row(TITLES)
    yield markdown_row(("---", *["---:"] * (len(TITLES) - 1)))
    for run in RUNS:
        rng = np.random.default_rng(SEED)
        texts = [simulated(run.case, rng) for _ in range(runs)]
        sequential, whole = (
            [_stopped(run, text, whole_text=whole_text) for text in texts]
            for whole_text in (False, True)
        )
        pairs = (
            _share_of(_verdict(side, verdict))
            for verdict in (Verdict.DEGRADED, Verdict.PASS)
            for side in (sequential, whole)
        )
        held = (
            _share_of([found.estimate.low <= run.value <= found.estimate.high for found in side])
            for side in (sequential, whole)
        )
        read = f"{100 * np.mean([found.read for found in sequential]):.0f} %"
        yield markdown_row(
            (run.gate.metric, f"{run.case.gathering:g}", run.truth, *pairs, *held, read)
        )


def _stopped(run: Run, text: list[PositionMetrics], *, whole_text: bool) -> Found:
    """Read a text until its gate is missed at a look, or all of it."""
    reached = np.cumsum([len(document.kl) for document in text])
    for part in parts(reached, whole_text=whole_text):
        found = estimate(run.case, text[: part.documents], part.level)
        judgement = judge({run.gate.metric: found}, None, [run.gate], ())
        if judgement.settled:
            break
    return Found(found, judgement.verdict, reached[part.documents - 1] / reached[-1])


def _verdict(side: list[Found], verdict: Verdict) -> list[bool]:
    return [found.verdict is verdict for found in side]


def _share_of(values: list[bool]) -> str:
    return f"{100 * np.mean(values):.1f} %"
