"""Results of parity runs that never took place, for tests of how they are shown."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeproof.artifact import Artifact, Facts, Precision
from edgeproof.artifact.manifest import Manifest, ModelIdentity, VariantRecord
from edgeproof.files.hashing import OutputFile
from edgeproof.verdicts import Verdict
from runtimes.footprint import Footprint
from runtimes.parity.answers import GreedyResult, SampledResult
from runtimes.parity.degeneration import TextQuality
from runtimes.parity.environment import environment
from runtimes.parity.execution import Execution
from runtimes.parity.floor import Floor
from runtimes.parity.gates import GATES
from runtimes.parity.intervals import Estimate
from runtimes.parity.localise import (
    Cause,
    Component,
    Finding,
    LayerError,
    Localisation,
    TensorError,
)
from runtimes.parity.long_range import LongRange
from runtimes.parity.looks import Look
from runtimes.parity.measure import Measurement
from runtimes.parity.padding import PaddingResult
from runtimes.parity.positions import WorstPosition
from runtimes.parity.replies import ReplyPair
from runtimes.parity.result import ComparedText, Entry, InputFile, ModelResult, ReferenceFacts
from runtimes.parity.statistics import log_histogram
from runtimes.parity.templates import TemplateResult
from runtimes.parity.verdict import Judgement
from runtimes.peaks import Peak, Place

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&$x_1$|`**\x1b{{7*7}}"
KL = np.array([0.0, 1e-5, 2e-3, 0.4, 3.0])


def measurement(scale: float = 1.0, text: str = "a") -> Measurement:
    names = ("mean_kl", "median_kl", "p99_kl", "top1", "clear_top1", "acceptance")
    estimates = {name: Estimate(0.1 * scale, 0.05 * scale, 0.2 * scale) for name in names}
    estimates |= {
        name: Estimate(1.0, 1.0, float("inf")) for name in ("perplexity_ratio", "fp16_headroom")
    }
    estimates["clear_top1"] = replace(estimates["clear_top1"], positions=1200, effective=400.0)
    estimates["rms_logit_difference"] = Estimate(0.5, 0.25, 1.0)
    words = f"same {text}", f"one{text}", text, "two", text
    reply = ReplyPair("chat-1", f"prompt {text}", 2, *words, reference_cut=True, export_cut=False)
    texts = TextQuality(repetition=0.1, tokens=8.0, stopped=1.0, perplexity=3.0)
    agreement = Estimate(0.25, 0.1, 0.4)
    greedy = GreedyResult(1, 0, 2.0, 8.0, agreement, 0.0, 100.0, texts, texts, (reply,))
    sampled = SampledResult(1, 0, 2.0, 8.0, agreement, texts, texts, ((1, 2),), ((1, 3),), (reply,))
    return Measurement(
        runtime=f"runtime {text}",
        execution=Execution("cpu", "float32", True, (f"not run in {text}",)),
        positions=len(KL),
        whole_text=True,
        looks=(Look(3, len(KL), 0.95, 0.1 * scale),),
        estimates=estimates,
        weights=None,
        weight_positions=0,
        arithmetic_kl=0.0,
        greedy=greedy,
        sampled=sampled,
        padding=PaddingResult(1e-9, 1e-9),
        chat_template=TemplateResult(4, 0, 0, None),
        tokenizer_strings=10,
        tokenizer_mismatches=0,
        max_kl=3.0,
        kl_histogram=log_histogram(KL),
        mean_kl_by_kind={f"chat{text}": 0.1 * scale, "code": 0.2 * scale},
        max_logit_difference=1.0,
        load_seconds=0.1,
        prefill_tokens_per_second=10.0,
        long_range=LongRange(2048, 256, 2e-3, 0.01),
        worst_positions=(WorstPosition(text, 3, f"before {text}", 3.0, text, "other"),),
        footprint=Footprint(
            load_seconds=0.1,
            load_cpu_seconds=0.2,
            runs=3,
            prefill_tokens=256,
            prefill_tokens_per_second=1000.0,
            prefill_tokens_per_cpu_second=600.0,
            decode_tokens=16,
            decode_tokens_per_second=50.0,
            decode_tokens_per_cpu_second=26.0,
            threads=2,
            other_cores=0.1,
            disturbed=False,
            peak_mb=200.0,
        ),
    )


def entry(
    name: str,
    verdict: Verdict,
    size: int = 1000,
    *,
    allowed: bool = False,
    reasons: tuple[str, ...] = ("too bad",),
    measured: Measurement | None = None,
    found: Localisation | None = None,
) -> Entry:
    variant = VariantRecord("gguf", name, Precision.LOW_BIT, {"linear": "q4"}, Facts())
    weights = {"bytes": size, "effective_bpw": 4.5, "fallback_share": 0.0, "fallbacks": []}
    weights |= {"classes": {}, "types": {"Q4_0": {"tensors": 1, "elements": 2, "bytes": 3}}}
    files = (OutputFile(f"{name}.gguf", size, "0" * 64),)
    manifest = Manifest(
        ModelIdentity("m", None, None, 1, files), variant, "recipe", {}, files, weights
    )
    why = () if verdict is Verdict.PASS else reasons
    judgement = Judgement(verdict, why, ("worth a note",))
    artifact = Artifact(
        Path("out/m/gguf") / "x", manifest, hashlib.sha256(name.encode()).hexdigest()
    )
    return Entry(artifact, allowed, GATES[Precision.LOW_BIT], judgement, measured, found)


def localisation(text: str) -> Localisation:
    """A blamed layer, with everything that a report can show."""
    finding = Finding(Cause.GRAPH, text, 1, Component.ROPE, tensor=text, key=text)
    layers = (
        LayerError("embedding", 0.0, 0.0),
        LayerError("layer 0", 1e-3, 1e-3),
        LayerError("layer 1", float("inf"), 0.5),
        LayerError("logits", 0.5, 1e-3),
    )
    tensors = (TensorError(text, 0.1, 0.2, text), TensorError("rounded", 0.1, float("inf")))
    others = (Finding(Cause.ROUNDING, "first other"), *[Finding(Cause.FILE, text)] * 4)
    return Localisation((finding, *others), layers, tensors)


def result(*entries: Entry, label: str = "tiny") -> ModelResult:
    reference = ReferenceFacts(
        runtime="pytorch 2",
        text=ComparedText("built-in, fast", "1" * 64),
        documents=3,
        positions=len(KL),
        repeated=40,
        peaks=(Peak(Place.STREAM, 2, 10.0), Peak(Place.PRODUCT, 1, 5.0)),
        fp16_headroom=6550.4,
        fp16_headroom_squared=655.04,
        floors={"runtime 1": Floor("onnx fp32", mean_kl=1e-11, p99_kl=1e-10)},
        inputs=(InputFile("model.safetensors", "2" * 64),),
    )
    return ModelResult(label, reference, environment(2), entries)


def usual_result() -> ModelResult:
    """One of each: passed, degraded, degraded but allowed, broken, inconclusive."""
    return result(
        entry("q8_0", Verdict.PASS, 2000, measured=measurement(0.01)),
        entry("q4_0", Verdict.DEGRADED, measured=measurement()),
        entry("q4_1", Verdict.DEGRADED, allowed=True, measured=measurement()),
        entry(
            "f16",
            Verdict.FAIL,
            reasons=("SHA-256 differs", "second reason"),
            found=localisation("wrong at layer 1"),
        ),
        entry("q5_0", Verdict.INCONCLUSIVE, measured=measurement(0.5)),
    )


def hostile_result() -> ModelResult:
    """Markup and control characters wherever a name or text comes from outside."""
    bad = entry(
        HOSTILE,
        Verdict.FAIL,
        reasons=(HOSTILE,),
        measured=measurement(1.0, HOSTILE),
        found=localisation(HOSTILE),
    )
    return result(bad, label=HOSTILE)
