"""The plan of `make gguf-table` has every type, and its table every artifact."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gguf_table import table
from edgeproof.verdicts import Compared, Interval, ParityReport, Verdict
from export.gguf import FORMAT
from export.gguf.imatrix import UNWEIGHTED
from export.plan import load_plan

PLAN = Path(__file__).parent.parent / "benchmarks" / "gguf_types.toml"


def test_the_plan_has_every_type_and_every_type_that_uses_a_matrix_with_one() -> None:
    names = [request.resolve()[1].name for request in load_plan(PLAN).variants]
    plain = [variant.name for variant in FORMAT.variants if variant.name != "recovered"]
    weighted = [f"{name}-imatrix" for name in plain if name.upper() not in UNWEIGHTED]
    assert sorted(names) == sorted(plain + weighted)
    assert len(names) == len(set(names)) == 30


def entry(variant: str, kl: float, verdict: Verdict = Verdict.DEGRADED) -> Compared:
    values = {"mean_kl": kl, "top1": 0.5, "perplexity_ratio": 1.25}
    return Compared(
        format="gguf",
        variant=variant,
        manifest="",
        files=(),
        bytes=2_000_000,
        effective_bpw=4.5,
        fallback_share=0.25,
        verdict=verdict,
        reasons=(),
        allow_degraded=False,
        metrics={key: Interval(value, None, None) for key, value in values.items()},
        of_weights=None,
        ran=None,
        activations=None,
        unseen=(),
    )


def test_a_type_is_one_row_with_its_matrix_beside_it() -> None:
    artifacts = (
        entry("q8_0", 0.001),
        entry("q4_0", 0.5),
        entry("q4_0-imatrix", 0.25),
        entry("q2_k", 1, Verdict.FAIL),
    )
    report = ParityReport("m", "pytorch", "text", 1, artifacts, (), {})
    assert table(report).splitlines()[2:] == [
        "| `q8_0` | 2.0 | 4.50 | 25% | 0.001 | 50.0% | 1.250 | – | – | – |",
        "| `q4_0` | 2.0 | 4.50 | 25% | 0.5 | 50.0% | 1.250 | 0.25 | 50.0% | 1.250 |",
        "| `q2_k` | 2.0 | 4.50 | 25% | FAIL | FAIL | FAIL | – | – | – |",
    ]
