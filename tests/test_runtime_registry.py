"""The registry imports a runtime only when it is asked for, and says what to install."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproof.artifact import (
    Artifact,
    ArtifactWriter,
    ModelIdentity,
    Precision,
    Recipe,
    Variant,
    open_artifact,
)
from edgeproof.errors import InputError
from runtimes import registry
from runtimes.formats import OURS

RUNTIME_PACKAGES = (
    *("torch", "transformers", "onnxruntime", "llama_cpp", "tvm", "mlx", "mlx_lm"),
    *("openvino", "openvino_genai"),
)


def empty_artifact(folder: Path, form: str) -> Artifact:
    model = ModelIdentity("tiny", None, None, 1, ())
    variant = Variant(form, "none", Precision.FP32, Recipe())
    with ArtifactWriter.create(folder, model, variant, {}):
        pass
    return open_artifact(folder)


def test_importing_the_registry_imports_no_runtime() -> None:
    code = f"import sys, runtimes.registry; print(set({RUNTIME_PACKAGES}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("form", OURS)
def test_a_missing_package_names_the_extra(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = OURS[form].adapter
    monkeypatch.setitem(sys.modules, adapter.packages[0], None)
    with pytest.raises(InputError, match=rf'pip install "edgeproof\[{adapter.extra}\]"') as caught:
        registry.open_runtime(empty_artifact(tmp_path / "a", form), 1)
    assert adapter.packages[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_reference_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"edgeproof\[parity\]"):
        registry.open_reference(tmp_path, 1)


def test_every_extra_is_declared_by_the_project() -> None:
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    ours = [a for reader in OURS.values() for a in (reader.adapter, *reader.others.values())]
    for module in (*ours, registry.REFERENCE):
        assert f"\n{module.extra} = [" in project


def test_another_missing_module_is_not_hidden() -> None:
    broken = replace(registry.REFERENCE, module="runtimes.no_such_adapter")
    with pytest.raises(ModuleNotFoundError, match="no_such_adapter"):
        broken.load()


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the format 'tflite'; known: onnx, gguf, mlc"):
        registry.open_runtime(empty_artifact(tmp_path / "a", "tflite"), 1)


def test_another_runtime_is_refused_for_a_format_that_it_does_not_execute(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="webgpu does not execute gguf"):
        registry.open_runtime(empty_artifact(tmp_path / "a", "gguf"), 1, "webgpu")
