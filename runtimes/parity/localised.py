"""Where an artifact breaks, beside its verdict, or why that cannot be told."""

from __future__ import annotations

from dataclasses import replace

from edgeproof.verdicts import Verdict
from runtimes.parity.bench import Bench
from runtimes.parity.blame import blame
from runtimes.parity.localise import Localisation, Weighed, localise
from runtimes.parity.result import Entry
from runtimes.parity.watch import Stage

# Mean KL that the runtime may add to what the weights cost before hidden states are traced.
UNEXPLAINED_KL = 0.02


def localised(
    entry: Entry, runtime: str | None, weighed: Weighed | None, bench: Bench, *, always: bool
) -> Entry:
    """The entry with where it breaks, or with why that cannot be told."""
    try:
        bench.journal.enter(Stage.LOCALISE, entry.artifact.subject)
        with bench.stages.subject(entry.name), bench.stages.phase("localising"):
            found = _localise(entry, runtime, weighed, bench, always=always)
    except BaseException as error:  # noqa: BLE001  `blame` raises what is of no file
        reason = blame(error, foreign=entry.artifact.foreign is not None)
        note = f"where it breaks cannot be told: {reason}"
        return replace(entry, judgement=entry.judgement.noted(note))
    return replace(entry, localisation=found)


def _localise(
    entry: Entry, runtime: str | None, weighed: Weighed | None, bench: Bench, *, always: bool
) -> Localisation:
    """Where it breaks. What weights do not explain is traced through the runtime, where it runs.

    An artifact that could not be opened is not run again: it may end this process.
    """
    m = entry.measurement
    trace = m is not None and (
        always
        or entry.judgement.verdict is Verdict.FAIL
        or m.arithmetic_kl > max(UNEXPLAINED_KL, m.weights["mean_kl"].value if m.weights else 0)
    )
    return localise(bench.subject(entry.artifact, runtime), m, weighed, trace=trace)
