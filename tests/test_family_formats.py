"""OLMo 2, SmolLM3 and Granite in every format whose runtime computes them, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeproof.errors import InputError
from export.sources.gguf_cache import converted
from tests.exported import export_tiny
from tests.family_checks import check_logits, check_stored, check_traced
from tests.tiny import OTHERS, make_checkpoint
from tests.tolerance import OTHER_RUNTIME

pytestmark = pytest.mark.numbers

FLOATS: dict[str, tuple[str, dict[str, Any]]] = {
    "onnx": ("fp32", {}),
    "gguf": ("f32", {}),
    "mlc": ("q0f32", {"raw_f32": True}),
}
REQUIRED = {"onnx": "onnxruntime", "gguf": "llama_cpp", "mlc": "tvm"}
IN_MLC = ("olmo2",)


@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize("name", OTHERS)
def test_a_family_is_exported_run_and_proved(tmp_path: Path, name: str, form: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **OTHERS[name])
    variant, options = FLOATS[form]
    if form == "mlc" and name not in IN_MLC:
        with pytest.raises(InputError, match=f"MLC: architecture '{name}' is not supported yet"):
            export_tiny(folder, form, variant, tmp_path, **options)
        return
    pytest.importorskip(REQUIRED[form])
    artifact = export_tiny(folder, form, variant, tmp_path, **options)
    check_logits(artifact, folder, OTHER_RUNTIME)
    check_stored(artifact, folder)
    check_traced(artifact, folder)


@pytest.mark.parametrize("name", OTHERS)
def test_a_gguf_file_of_it_is_a_source(tmp_path: Path, name: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **OTHERS[name])
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    made = converted(artifact.file(".gguf"), "tiny").path
    found, expected = load_file(made / "model.safetensors"), load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for tensor, values in expected.items():
        np.testing.assert_array_equal(found[tensor], values, err_msg=tensor)
    check_logits(artifact, made, OTHER_RUNTIME)
