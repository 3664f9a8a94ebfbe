"""Where PyTorch, ONNX Runtime and llama.cpp compute; no machine of these tests has a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner

from edgeproof.artifact import Artifact, Precision
from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.steps.job import write_job
from edgeproof.steps.planned import PlannedMeasuring, heard
from runtimes import llamacpp_gpu, onnxruntime_cuda
from runtimes.llamacpp import LlamaCpp
from runtimes.parity.agreement import LIMIT, TOKENS, agreement, agreement_with_cpu
from runtimes.parity.elsewhere import left_open
from runtimes.parity.execution import unseen
from runtimes.parity.gates import gates_for
from runtimes.parity.steps import plan as steps_plan
from runtimes.parity.steps import reference as steps_reference
from runtimes.pytorch import TorchRuntime, layered, open_reference
from runtimes.pytorch.held import Held
from runtimes.pytorch.layered import Layered
from runtimes.pytorch.loading import load_model, load_tokenizer
from runtimes.pytorch.watch import Watch
from runtimes.pytorch.whole import Whole
from runtimes.registry import open_runtime
from runtimes.said import said_of
from tests.exported import export_tiny
from tests.tiny import GEMMA3, make_checkpoint

IDS = [5, 9, 300, 7, 41]
META = torch.device("meta")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("devices") / "tiny")


@pytest.fixture(scope="module")
def gguf(checkpoint: Path) -> Artifact:
    return export_tiny(checkpoint, "gguf", "f16", checkpoint.parent)


@pytest.fixture(scope="module")
def onnx(checkpoint: Path) -> Artifact:
    return export_tiny(checkpoint, "onnx", "fp32", checkpoint.parent)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("command", ["parity", "audit", "imatrix", "chat"])
def test_a_device_that_is_not_there_is_one_line(
    command: str, device: str, checkpoint: Path, gguf: Artifact, no_gpu: None, tmp_path: Path
) -> None:
    out, file = tmp_path / "out.gguf", gguf.file(".gguf")
    arguments: dict[str, list[str | Path]] = {
        "parity": [gguf.path, "--checkpoint", checkpoint, "--no-watch", "--json", out],
        "audit": [file, "--against", checkpoint, "--no-watch", "--json", out],
        "imatrix": ["--checkpoint", checkpoint, "--out", out],
        "chat": [checkpoint],
    }
    asked = [command, *map(str, arguments[command]), "--device", device]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    (line,) = (line for line in done.output.splitlines() if line.startswith("error: "))
    assert line == (f"error: --device {device}: PyTorch finds none on this machine; there is cpu")
    assert not out.exists()


def planned(*options: str) -> PlannedMeasuring:
    done = CliRunner().invoke(steps_plan.main, [*options, "--threads=1"])
    assert done.exit_code == 0, done.output
    return heard(PlannedMeasuring, done.output)


def test_a_runs_steps_compute_where_it_was_decided(
    monkeypatch: pytest.MonkeyPatch, no_gpu: None, checkpoint: Path, tmp_path: Path
) -> None:
    """What a GPU gives is another result: keys tell it apart, and no worker falls back."""
    without = planned()
    assert without == planned("--device=cpu")
    assert without.of_text["device"] == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = planned()
    assert found == replace(
        without,
        of_text={**without.of_text, "device": "cuda"},
        gpus=1,
        gpu_memory_times=steps_plan.GPU_WEIGHTS,
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    params = {**found.of_text, "inputs": ["config.json"]}
    write_job(tmp_path / "job", params, {"model": checkpoint}, tmp_path / "out", {})
    done = CliRunner().invoke(steps_reference.main, [str(tmp_path / "job")])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "--device cuda: PyTorch finds none on this machine" in done.output


def test_without_a_gpu_nothing_changes(checkpoint: Path, no_gpu: None) -> None:
    found = open_reference(checkpoint, 1)
    assert (found.device, found.version) == ("cpu", TorchRuntime.version)
    assert agreement_with_cpu(found, checkpoint, 1, None) is None  # type: ignore[arg-type]


def test_float32_is_never_rounded_to_tf32(checkpoint: Path) -> None:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    open_reference(checkpoint, 1)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("model", [{}, {"tie_word_embeddings": False}, GEMMA3])
@pytest.mark.parametrize("by_layer", [False, True])
def test_all_tensors_are_on_the_device_that_is_asked_for(
    model: dict[str, Any], by_layer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On "meta", where nothing has values and nothing may come from another device."""
    folder = make_checkpoint(tmp_path / "m", **model)
    monkeypatch.setattr(layered, "check_head", lambda *_: None)

    def hold(watch: Watch) -> Held:
        if by_layer:
            return Layered(folder, watch, META)
        return Whole(partial(load_model, folder), watch, META)

    # Which rows are needed is a question of values.
    monkeypatch.setattr(Layered, "_wanted", lambda *_: torch.tensor([5, 9]))
    runtime = TorchRuntime(hold, load_tokenizer(folder), said_of(folder))
    assert runtime.device.startswith("meta")
    assert runtime.version.endswith(runtime.device), "what is cached of the CPU is not of it"
    seen = []
    for module in runtime._model.modules():
        module.register_forward_hook(
            lambda module, _, __: seen.extend(
                [p.device for p in (*module.parameters(False), *module.buffers(False))]
            )
        )
    runtime.chunk = 3
    hidden = [*runtime._parts(IDS)]
    assert [len(part) for part in hidden] == [3, 2]
    assert {part.device for part in hidden} == {META}
    assert runtime._projected(hidden[0]).device == META
    assert set(seen) == {META}


class Fixed:
    """A runtime that gives these hidden states."""

    def __init__(self, rows: np.ndarray, device: str = "cuda, Some GPU") -> None:
        self.device, self._rows = device, rows

    def hidden(self, ids: Sequence[int]) -> np.ndarray:
        return self._rows[: len(ids)]


def test_a_gpu_is_held_against_the_cpu() -> None:
    rows = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    said = agreement(Fixed(rows * np.float32(1 + 1e-5)), Fixed(rows), range(100))
    assert (said.tokens, said.limit) == (TOKENS, LIMIT)
    assert said.difference == pytest.approx(1e-5, rel=0.05)
    for wrong in (rows * np.float32(1.001), rows[::-1], np.full_like(rows, np.nan)):
        with pytest.raises(InputError, match=r"--device: cuda, Some GPU computes .*--device cpu"):
            agreement(Fixed(wrong), Fixed(rows), range(100))


def test_onnx_runtime_without_cuda_is_one_line(
    onnx: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=r"has no CUDA provider; .* onnxruntime-gpu"):
        open_runtime(onnx, 1, "onnxruntime-cuda")


@pytest.mark.skipif(
    onnxruntime_cuda.PROVIDER in ort.get_available_providers(), reason="it has the provider"
)
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_onnx_runtime_that_falls_back_to_the_cpu_is_refused(
    onnx: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [onnxruntime_cuda.PROVIDER])
    with pytest.raises(InputError, match="nodes would run on the CPU, not on CUDA"):
        open_runtime(onnx, 1, "onnxruntime-cuda")


def test_llama_cpp_without_a_gpu_is_one_line(
    gguf: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: False)
    with pytest.raises(InputError, match="here finds no GPU; build it for one: CMAKE_ARGS="):
        open_runtime(gguf, 1, "llamacpp-gpu")


@pytest.mark.parametrize(("runtime", "layers"), [(None, 0), ("llamacpp-gpu", 1_000_000)])
def test_llama_cpp_is_told_how_much_is_the_gpus(
    gguf: Artifact, runtime: str | None, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    load, begin = llama_cpp.llama_model_load_from_file, llama_cpp.llama_init_from_model

    def loaded(path: bytes, params: Any) -> Any:
        told.append(params.n_gpu_layers)
        return load(path, params)

    def begun(model: Any, params: Any) -> Any:
        told.append((params.op_offload, params.offload_kqv))
        return begin(model, params)

    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: True)
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", loaded)
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", begun)
    opened = open_runtime(gguf, 1, runtime)
    assert isinstance(opened, LlamaCpp)
    opened.close()
    assert told == [layers, (layers > 0, layers > 0)]


def test_backends_are_named_as_llama_cpp_does() -> None:
    said = "CUDA : ARCHS = 900 | USE_GRAPHS = 1 | CPU : SSE3 = 1 | AVX = 1 | "
    assert llamacpp_gpu.backends(said) == ["CUDA"]
    assert llamacpp_gpu.backends("CPU : AVX = 1 | ") == []


@pytest.mark.parametrize("runtime", ["onnxruntime-cuda", "llamacpp-gpu"])
def test_arithmetic_of_its_own_has_gates_of_its_own(runtime: str) -> None:
    wider = {
        precision
        for precision in Precision
        if gates_for(precision, {}, runtime) != gates_for(precision, {})
    }
    rounded = {Precision.FP16}
    if runtime == "llamacpp-gpu":  # float32 products are TF32's there
        rounded |= {Precision.FP32, Precision.BF16}
    assert wider == rounded


def test_cuda_shows_nothing_of_a_browsers_gpu(checkpoint: Path) -> None:
    artifact = export_tiny(checkpoint, "onnx", "fp16", checkpoint.parent)
    asked = [item.runtime for item in left_open(artifact, allow_degraded=False)]
    assert asked == ["webgpu"]
    (place, _), *_ = unseen(artifact, "onnxruntime-cuda")
    assert place.name == "browser, WebGPU with f16"


@pytest.mark.parametrize("runtime", ["onnxruntime-cuda", "llamacpp-gpu"])
def test_a_runtime_that_is_not_here_is_no_fault_of_the_file(
    runtime: str, onnx: Artifact, gguf: Artifact, checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: False)
    artifact = onnx if runtime == "onnxruntime-cuda" else gguf
    words = [str(artifact.path), "--checkpoint", str(checkpoint), "--runtime", runtime]
    report = tmp_path / "parity.json"
    done = CliRunner().invoke(main, ["parity", *words, "--json", str(report)])
    assert done.exit_code == 2
    assert "here " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not report.exists()


@pytest.mark.parametrize("name", ["ONNX Runtime on CUDA", "llama.cpp on a GPU"])
def test_doctor_looks_for_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: False)
    done = CliRunner().invoke(main, ["doctor", "--look", name])
    assert done.exit_code == 0
    assert '"found": null' in done.stdout
    assert "pip install" in done.stdout


def test_gates_of_a_plan_may_name_the_classes() -> None:
    limits = {"fp32-llamacpp-gpu": {"mean_kl": 0.5}}
    (first, *_) = gates_for(Precision.FP32, limits, "llamacpp-gpu")
    assert replace(first, reason="") == replace(first, limit=0.5, reason="")
