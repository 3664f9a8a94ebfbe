"""Where an export ran, in which arithmetic, and what that does not show."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgeproof.artifact import Facts, Precision
from edgeproof.verdicts import Verdict
from runtimes.parity.advice import advise
from runtimes.parity.execution import Execution, execution
from runtimes.parity.report.terminal import print_result
from runtimes.parity.result import Entry
from tests.exported import export_tiny
from tests.parity_results import entry, measurement, result
from tests.tiny import make_checkpoint

CPU = "on the CPU in float32"
WEBGPU, WASM = "browser, WebGPU with f16", "ONNX Runtime on CPU, wasm"
WEBLLM = f"not run in WebLLM: edgeproof's own decoder in tvm stood in for it, {CPU}"
# Export → what its usual runtime does not show.
UNSEEN = {
    ("onnx", "fp16"): (f"not run in {WEBGPU}: it ran {CPU}",),
    ("onnx", "q4f16"): (f"not run in {WEBGPU}: it ran {CPU}",),
    ("onnx", "fp32"): (),
    ("onnx", "q8"): (),
    ("gguf", "q8_0"): (),
    ("mlc", "q0f16"): (WEBLLM,),
    ("mlc", "q4f32_1"): (WEBLLM,),
}
ON_CPU = Execution("cpu", "float32", True, ("something",))
ON_GPU = Execution("gpu", "float16", True, ())
STAND_IN = Execution("cpu", "float32", False, (WEBLLM,))


@pytest.mark.parametrize(("form", "dtype"), UNSEEN)
def test_what_a_run_leaves_open_follows_from_its_runtime(
    tmp_path: Path, form: str, dtype: str
) -> None:
    artifact = export_tiny(make_checkpoint(tmp_path / "m"), form, dtype, tmp_path)
    found = execution(artifact)
    assert (found.device, found.activations, found.real) == ("cpu", "float32", form != "mlc")
    assert found.unseen == UNSEEN[form, dtype]


def test_another_runtime_shows_something_else(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    fp16 = export_tiny(folder, "onnx", "fp16", tmp_path)
    q8 = export_tiny(folder, "onnx", "q8", tmp_path)
    for name in ("webgpu", "browser-webgpu"):
        assert execution(fp16, name) == Execution("gpu", "float16", True, ())
        unseen = (f"not run in {WASM}: it ran on the GPU in float32",)
        assert execution(q8, name) == Execution("gpu", "float32", True, unseen)
    assert execution(fp16, "browser").unseen == UNSEEN["onnx", "fp16"]
    assert execution(q8, "browser").unseen == ()
    in_openvino = execution(q8, "openvino")
    assert in_openvino.unseen == (f"not run in {WASM}: it ran in OpenVINO, {CPU}",)
    assert in_openvino.place == "OpenVINO"


def ran(form: str, name: str, size: int, run: Execution, verdict: Verdict = Verdict.PASS) -> Entry:
    found = entry(name, verdict, size, measured=replace(measurement(0.01), execution=run))
    variant = replace(
        found.artifact.manifest.variant,
        format=form,
        precision=Precision.FP16,
        facts=Facts("float16"),
    )
    manifest = replace(found.artifact.manifest, variant=variant)
    return replace(found, artifact=replace(found.artifact, manifest=manifest))


def test_advice_says_where_an_export_was_judged_that_did_not_run_there() -> None:
    entries = (ran("onnx", "fp16", 270, ON_CPU), ran("mlc", "q0f16", 260, STAND_IN))
    webgpu, webllm = advise(entries).recommendations
    assert (webgpu.export, webgpu.executed) == ("onnx fp16", False)
    assert webgpu.elsewhere == "runtime a, float32 on the CPU"
    assert (webllm.export, webllm.executed) == ("mlc q0f16", False)
    assert webllm.elsewhere == "runtime a, a stand-in, float32 on the CPU"
    console = Console(file=io.StringIO(), width=300)
    print_result(console, result(*entries))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "onnx fp16, 0.0 MB" in text
    assert text.count("not run there, but in runtime a") == 2


def test_what_ran_there_is_recommended_before_a_smaller_one_that_did_not() -> None:
    there, elsewhere = ran("onnx", "fp16", 270, ON_GPU), ran("onnx", "q4f16", 120, ON_CPU)
    (found,) = advise((there, elsewhere)).recommendations
    assert (found.export, found.executed, found.elsewhere) == ("onnx fp16", True, None)
    failed = ran("onnx", "fp16", 270, ON_GPU, Verdict.DEGRADED)
    (found,) = advise((failed, elsewhere)).recommendations
    assert (found.export, found.executed) == ("onnx q4f16", False)


def test_a_runtime_that_was_asked_for_is_a_place_of_its_own() -> None:
    """What it shows is nothing of the usual one, though both are on the CPU."""
    usual = ran("gguf", "f16", 270, replace(ON_CPU, unseen=()))
    asked = ran("gguf", "q8_0", 145, replace(ON_CPU, place="OpenVINO"))
    there, openvino = advise((usual, asked)).recommendations
    assert (there.target, there.export, there.executed) == ("llama.cpp", "gguf f16", True)
    assert (openvino.target, openvino.export) == ("OpenVINO", "gguf q8_0")
    assert (openvino.executed, openvino.smaller) == (True, ())
    there, openvino = advise((asked,)).recommendations
    assert (there.export, there.executed) == ("gguf q8_0", False)
    assert there.elsewhere == "runtime a, float32 on the CPU"
    assert openvino.executed
    assert [found.target for found in advise((usual,)).recommendations] == ["llama.cpp"]


def test_llama_cpp_on_a_cpu_is_where_users_run_it() -> None:
    (found,) = advise((entry("q8_0", Verdict.PASS, measured=measurement()),)).recommendations
    assert (found.target, found.executed, found.elsewhere) == ("llama.cpp", True, None)
