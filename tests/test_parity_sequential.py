"""A run that may stop early against one on the whole text, with a tiny model's exports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edgeproof.verdicts import Verdict
from runtimes.parity import run as parity_run
from runtimes.parity import tokenizer, weights_alone
from runtimes.parity.localise import Cause, Finding
from runtimes.parity.measure import Measurement
from runtimes.parity.result import Entry, ReferenceFacts
from runtimes.parity.run import Conditions, Extent, ParityRun, Request, run_parity
from runtimes.parity.suite import Budget, built_in
from tests.parity_runs import export_plan

pytestmark = pytest.mark.numbers

# Far from what 4 bits cost a tiny model.
GATES = {"4-bit": {"mean_kl": 1e-3, "acceptance": 0.9999}}
SEQUENTIAL = Extent(footprints=False, whole_text=False)
WHOLE = Extent(footprints=False, whole_text=True)

Found = tuple[ReferenceFacts, dict[str, Entry]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_plan(tmp_path_factory.mktemp("sequential"))


def compared(
    exported: Path, extent: Extent, names: Sequence[str] = ("onnx", "gguf", "mlc")
) -> Found:
    paths = [next((exported / "out/tiny" / name).glob("*/edgeproof.json")).parent for name in names]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "COUNT", 100)
        # A tiny model's documents have many tokens: so that a first part is less than half of them.
        patch.setattr(weights_alone, "WEIGHT_POSITIONS", 3000)
        patch.setenv("EDGEPROOF_CACHE", str(exported / "cache"))
        requests = [Request(path, allow_degraded=True) for path in paths]
        conditions = Conditions(built_in(Budget.FAST), 2, GATES, extent)
        facts, entries = run_parity(ParityRun(exported / "tiny", requests, conditions))
    return facts, dict(zip(names, entries, strict=True))


@pytest.fixture(scope="module")
def sequential(exported: Path) -> Iterator[Found]:
    yield compared(exported, SEQUENTIAL)


@pytest.fixture(scope="module")
def whole(exported: Path) -> Iterator[Found]:
    yield compared(exported, WHOLE)


def measured(entry: Entry) -> Measurement:
    assert entry.measurement is not None
    return entry.measurement


def test_gross_damage_is_found_on_a_part_with_the_verdict_of_the_whole(
    sequential: Found, whole: Found
) -> None:
    facts, entries = sequential
    early, late = entries["mlc"], whole[1]["mlc"]
    assert early.judgement.verdict is late.judgement.verdict is Verdict.DEGRADED
    gates = [[r.split(" = ")[0] for r in entry.judgement.reasons] for entry in (early, late)]
    assert gates[0] == gates[1]
    m = measured(early)
    assert not m.whole_text
    assert m.positions < facts.positions / 2
    assert m.positions == m.looks[-1].positions == sum(m.kl_histogram.counts)
    assert {e.positions for name, e in m.estimates.items() if name == "mean_kl"} == {m.positions}
    assert m.estimates["mean_kl"].low > GATES["4-bit"]["mean_kl"]
    assert any(f"the first {m.positions:,} of " in note for note in early.judgement.notes)
    assert m.long_range is not None
    assert m.greedy is not None
    assert early.localisation is not None
    assert late.localisation is not None
    assert early.localisation.cause.cause is late.localisation.cause.cause is Cause.ROUNDING


def test_what_passes_has_read_the_whole_text(sequential: Found, whole: Found) -> None:
    facts, entries = sequential
    for name in ("onnx", "gguf"):
        early, late = (measured(found[1][name]) for found in (sequential, whole))
        assert entries[name].judgement.verdict is Verdict.PASS
        assert early.whole_text
        assert early.positions == late.positions == facts.positions
        assert len(early.looks) > len(late.looks) == 1
        for metric, wide in early.estimates.items():
            narrow = late.estimates[metric]
            assert wide.value == narrow.value
            assert wide.low <= narrow.low
            assert wide.high >= narrow.high


def test_the_weights_alone_are_read_on_the_same_first_documents(
    sequential: Found, whole: Found
) -> None:
    early, late = (measured(found[1]["mlc"]) for found in (sequential, whole))
    assert early.weight_positions == early.positions < late.weight_positions
    assert early.weights is not None
    assert early.weights["acceptance"].positions == early.weight_positions


def test_an_interrupted_run_that_is_begun_again_finds_the_same(
    exported: Path, sequential: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, calls = parity_run.measure, 0

    def interrupted(*arguments: object) -> Measurement:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return measure(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(parity_run, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compared(exported, SEQUENTIAL, ("mlc", "onnx"))
    _, again = compared(exported, SEQUENTIAL, ("mlc", "onnx"))
    for name, entry in again.items():
        before, m = measured(sequential[1][name]), measured(entry)
        assert entry.judgement == sequential[1][name].judgement
        assert (m.looks, m.estimates, m.weights) == (before.looks, before.estimates, before.weights)
        assert m.kl_histogram == before.kl_histogram


def test_a_broken_artifact_reads_no_more_than_the_first_part(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        parity_run, "compare_metadata", lambda *_: [Finding(Cause.METADATA, "a wrong key")]
    )
    _, entries = compared(exported, SEQUENTIAL, ("gguf",))
    assert entries["gguf"].judgement.verdict is Verdict.FAIL
    m = measured(entries["gguf"])
    assert len(m.looks) == 1
    assert m.weight_positions in (0, m.positions)
