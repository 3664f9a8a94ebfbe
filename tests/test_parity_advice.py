"""Advice: what few bits cost, what is smallest for each target, and what beats what."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from edgeproof.artifact import Facts, Precision
from edgeproof.verdicts import Verdict
from runtimes.parity.advice import LEVELS, advise
from runtimes.parity.gates import GATES
from runtimes.parity.intervals import Estimate
from runtimes.parity.looks import Look
from runtimes.parity.report.html import models_page, page
from runtimes.parity.report.json import write_json
from runtimes.parity.report.markdown import markdown
from runtimes.parity.report.terminal import print_result, print_summary
from runtimes.parity.result import Entry, HeldOut, RecoveredFrom
from tests.parity_results import entry, measurement, result

# What a good export of each level reaches, besides its KL.
GOOD = {"top1": 0.999, "clear_top1": 1.0, "acceptance": 0.99}


def made(
    form: str,
    name: str,
    precision: Precision,
    size: int,
    kl: float,
    verdict: Verdict = Verdict.PASS,
    activations: str = "float32",
) -> Entry:
    values = {"mean_kl": kl, "p99_kl": 5 * kl, **GOOD}
    m = replace(
        measurement(),
        estimates={
            **measurement().estimates,
            **{key: Estimate(value, value, value, 2000) for key, value in values.items()},
        },
        looks=(Look(58, 2000, 0.95, kl),),
    )
    found = entry(name, verdict, size, measured=m)
    manifest = found.artifact.manifest
    variant = replace(manifest.variant, format=form, precision=precision, facts=Facts(activations))
    artifact = replace(found.artifact, manifest=replace(manifest, variant=variant))
    return replace(found, artifact=artifact, gates=GATES[precision])


ENTRIES = (
    made("onnx", "fp32", Precision.FP32, 540, 1e-11),
    made("onnx", "fp16", Precision.FP16, 270, 1e-5, activations="float16"),
    made("onnx", "q8", Precision.EIGHT_BIT, 150, 5e-3),
    made("onnx", "q4", Precision.LOW_BIT, 110, 0.3, Verdict.DEGRADED),
    made("onnx", "q4f16", Precision.LOW_BIT, 120, 0.36, Verdict.DEGRADED, "float16"),
    made("gguf", "q8_0", Precision.EIGHT_BIT, 145, 6e-3),
    made("gguf", "q6_k", Precision.LOW_BIT, 130, 9e-3),
    made("gguf", "q5_1", Precision.LOW_BIT, 112, 0.03),
    made("gguf", "q4_0", Precision.LOW_BIT, 90, 0.4, Verdict.DEGRADED),
    made("mlc", "q4f16_1", Precision.LOW_BIT, 80, 0.5, Verdict.DEGRADED),
)


def test_a_recovered_export_is_beside_the_plain_one_of_its_format_with_the_nearest_bits() -> None:
    recovered = replace(
        made("gguf", "recovered", Precision.LOW_BIT, 86, 0.05),
        recovered=RecoveredFrom(40_960, "1" * 64, ()),
    )
    plain = [
        with_bits(made("gguf", name, Precision.LOW_BIT, size, kl), bits)
        for name, size, kl, bits in (("q4_0", 90, 0.4, 5.4), ("q6_k", 130, 0.01, 6.6))
    ]
    entries = [*ENTRIES[:5], *plain, with_bits(recovered, 5.0)]
    (found,) = advise(entries).mended
    assert found.before is not None
    assert (found.after.export, found.before.export) == ("gguf recovered", "gguf q4_0")
    assert (found.after.mean_kl, found.before.mean_kl) == (0.05, 0.4)
    assert "plainly rounded, gguf q4_0" in found.text
    (alone,) = advise([*ENTRIES[:5], recovered]).mended
    assert alone.before is None
    assert "plainly" not in alone.text


def test_a_text_that_recovery_did_not_calibrate_for_is_named() -> None:
    plain = made("gguf", "recovered", Precision.LOW_BIT, 86, 0.05)
    assert plain.measurement is not None
    kinds = {"unicode": 0.11, "code": 0.09, "prose": 0.04}
    measured = replace(plain.measurement, mean_kl_by_kind=kinds)
    for held, farther in ((0.05, ["unicode"]), (0.04, ["unicode", "code"]), (0.06, [])):
        made_from = RecoveredFrom(40_960, "1" * 64, (), HeldOut(6144, 0.03, 0.02, held))
        entry = replace(plain, measurement=measured, recovered=made_from)
        (found,) = advise([entry]).mended
        assert list(found.farther) == farther
        assert "held-out text of the model: mean KL 0.03" in found.text
        assert ("--calibration" in found.text) == bool(farther)
        assert all(f"{kind} {kinds[kind]}" in found.text for kind in farther)


def with_bits(found: Entry, bits: float) -> Entry:
    manifest = found.artifact.manifest
    weights = {**manifest.weights, "effective_bpw": bits}
    artifact = replace(found.artifact, manifest=replace(manifest, weights=weights))
    return replace(found, artifact=artifact)


def test_each_target_gets_its_smallest_passing_export_and_what_meets_stricter_gates() -> None:
    found = {item.target: item for item in advise(ENTRIES).recommendations}
    webgpu, cpu, llama, webllm = found.values()
    assert (webgpu.export, webgpu.bytes) == ("onnx fp16", 270)
    assert webgpu.smaller == ("onnx q4f16",)
    assert cpu.export == "onnx q8"
    assert cpu.levels == {"fp16": "onnx fp32", "8-bit": "onnx q8", "4-bit": "onnx q8"}
    assert llama.export == "gguf q5_1"
    assert llama.levels == {"fp16": None, "8-bit": "gguf q6_k", "4-bit": "gguf q5_1"}
    assert (webllm.export, webllm.bytes, webllm.smaller) == (None, None, ("mlc q4f16_1",))
    assert set(webllm.levels.values()) == {None}


def read_until(name: str, size: int, *kl: float) -> Entry:
    """A 4-bit export of that mean KL after 8, 19 and 58 documents; of fewer, it stopped there."""
    found = made("gguf", name, Precision.LOW_BIT, size, kl[-1], Verdict.DEGRADED)
    assert found.measurement is not None
    looks = tuple(
        Look(documents, 88 * documents, 0.95, value)
        for documents, value in zip((8, 19, 58), kl, strict=False)
    )
    measured = replace(
        found.measurement, looks=looks, whole_text=len(kl) == 3, positions=looks[-1].positions
    )
    return replace(found, measurement=measured)


def test_exports_are_ranked_on_what_all_of_them_have_read() -> None:
    stopped = read_until("stopped", 90, 0.5)
    better = read_until("better", 80, 0.4, 0.5, 0.6)
    worse = read_until("worse", 85, 0.55, 0.5, 0.45)
    advice = advise([stopped, better, worse])
    beaten = {point.export: point.dominated_by for point in advice.points}
    assert beaten == {"gguf stopped": "gguf better", "gguf better": None, "gguf worse": None}
    assert [cost.export for cost in advice.costs] == ["gguf better", "gguf stopped", "gguf worse"]
    assert [cost.positions for cost in advice.costs] == [None, 704, None]
    alone = advise([better, worse])
    assert [cost.export for cost in alone.costs] == ["gguf worse", "gguf better"]


def test_a_plans_own_gates_decide_the_levels() -> None:
    strict = tuple(replace(gate, limit=0.02) for gate in GATES[Precision.LOW_BIT][:1])
    entries = [
        replace(item, gates=strict) if item.gates == GATES[Precision.LOW_BIT] else item
        for item in ENTRIES
    ]
    found = {item.target: item for item in advise(entries).recommendations}
    assert found["llama.cpp"].levels["4-bit"] == "gguf q6_k"


def test_costs_are_sentences_against_the_smallest_passing_of_eight_bits() -> None:
    texts = {cost.export: cost.text for cost in advise(ENTRIES).costs}
    assert next(iter(texts)) == "gguf q6_k"
    assert texts["onnx q4f16"] == (
        "onnx q4f16: mean KL 0.36 (7.2 × its gate), agrees with PyTorch on 100 % of tokens,"
        " 4.50 bits per weight, saves 20 % against onnx q8"
    )
    assert "saves 38 % against gguf q8_0" in texts["gguf q4_0"]
    assert texts["mlc q4f16_1"].endswith("no export of its format with 8 bits or more passes")
    larger = replace(ENTRIES[4], artifact=made("onnx", "x", Precision.LOW_BIT, 151, 1).artifact)
    (cost,) = advise([ENTRIES[2], larger]).costs
    assert cost.text.endswith("and no smaller than onnx q8, which passes")


def test_the_front_and_what_dominates_the_rest() -> None:
    advice = advise(ENTRIES)
    points = {point.export: point for point in advice.points}
    front = [point.export for point in advice.front]
    assert front == [
        "mlc q4f16_1", "gguf q4_0", "onnx q4", "gguf q5_1", "gguf q6_k", "gguf q8_0",
        "onnx q8", "onnx fp16", "onnx fp32",
    ]  # fmt: skip
    dominated = points["onnx q4f16"]
    assert (dominated.dominated_by, dominated.dominated_in_format) == ("gguf q5_1", "onnx q4")
    for point in advice.points:
        better = [
            other
            for other in advice.points
            if other.bytes <= point.bytes
            and other.mean_kl <= point.mean_kl
            and (other.bytes, other.mean_kl) != (point.bytes, point.mean_kl)
        ]
        assert (point.dominated_by is None) == (not better)


def test_some_bytes_of_metadata_keep_nothing_on_the_front() -> None:
    plain, better = (
        made("mlc", name, Precision.LOW_BIT, size, kl)
        for name, kl, size in (("plain", 0.5, 78_650), ("recovered", 0.15, 78_651))
    )
    points = {point.export: point.dominated_by for point in advise([plain, better]).points}
    assert points == {"mlc plain": "mlc recovered", "mlc recovered": None}


def test_broken_exports_advise_nothing_and_twins_do_not_dominate_each_other() -> None:
    broken = made("gguf", "f16", Precision.FP16, 1, 0.0, Verdict.FAIL)
    unopened = entry("f16", Verdict.FAIL)
    assert advise([broken, unopened]) == advise([])
    twins = [made("gguf", name, Precision.LOW_BIT, 10, 0.1) for name in "ab"]
    assert [point.dominated_by for point in advise(twins).points] == [None, None]


def test_every_report_shows_it(tmp_path: Path) -> None:
    recovered = made("gguf", "recovered", Precision.LOW_BIT, 118, 0.2, Verdict.DEGRADED)
    recovered = replace(recovered, recovered=RecoveredFrom(40_960, "1" * 64, ()))
    run = result(*ENTRIES, recovered)
    console = Console(file=io.StringIO(), width=180)
    print_result(console, run)
    assert isinstance(console.file, io.StringIO)
    terminal = console.file.getvalue()
    written = page(run)
    plain = markdown([run]).replace("\\", "")
    for text in (terminal, plain, written):
        assert "saves 20 % against onnx q8" in " ".join(text.split())
        assert "dominated by gguf q5_1" in text
        assert "40,960 tokens of calibration text" in " ".join(text.split())
    assert "All models" not in terminal + plain
    for text in (terminal, plain):
        assert text.lower().index("what to ship") < text.index("DEGRADED") < text.index("dominated")
    assert 'aria-label="The smallest export for each target"' in written
    write_json(tmp_path / "parity.json", run)
    advice = json.loads((tmp_path / "parity.json").read_text("utf-8"))["advice"]
    assert advice["recommendations"][0]["export"] == "onnx fp16"
    assert set(advice["recommendations"][0]["levels"]) == {level.value for level in LEVELS}


def test_several_models_get_a_summary() -> None:
    runs = [result(*ENTRIES, label="one"), result(entry("f16", Verdict.FAIL), label="two")]
    console = Console(file=io.StringIO(), width=180)
    print_summary(console, runs)
    assert isinstance(console.file, io.StringIO)
    for text in (console.file.getvalue(), markdown(runs)):
        assert "All models" in text
        rows = [line.split() for line in text.splitlines() if "llama.cpp" in line]
        assert any("one" in row for row in rows)
    over_all = models_page(runs, ["one/parity.html", "t w&o/parity.html"])
    assert '<a href="one/parity.html">one</a>' in over_all
    assert 'href="t%20w%26o/parity.html"' in over_all
    assert markdown(runs).index("All models") < markdown(runs).index("Parity of one")


def test_rings_mark_what_to_ship() -> None:
    shipped = page(result(*ENTRIES)).count("stroke-width: 1.3")
    none = page(result(*(replace(item, judgement=ENTRIES[3].judgement) for item in ENTRIES)))
    assert shipped >= 2 * 3  # in both plots
    assert none.count("stroke-width: 1.3") == 0
