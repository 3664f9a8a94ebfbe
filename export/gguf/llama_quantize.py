"""llama.cpp's own quantiser, called through llama-cpp-python.

Its output depends on its version and input alone, not on the number of threads.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from export.gguf.llama_cpp import PACKAGE, captured_log, installed_version, load_api
from export.gguf.recipe import Recipe
from export.gguf.storage import LAYOUTS, Layout

BUFFER_BYTES = 64 << 20  # rows held at once; it does not change the result
# "[ 2/29] token_embd.weight - [64, 384, 1, 1], type = f32, size = 0.09 MiB -> 0.02 MiB (q8_0)"
PLANNED = re.compile(r"^\[ *\d+/ *\d+\] +(\S+) +- .*type = +(\w+),.*?(?:\((\w+)\))?$")


def package_version() -> str:
    """The installed version of llama-cpp-python, without loading it.

    Raises:
        InputError: it is not installed.
    """
    version = installed_version()
    if version is None:
        raise _missing()
    return version


def planned_types(
    source: Path, recipe: Recipe, importance: Mapping[str, np.ndarray]
) -> dict[str, Layout]:
    """The type that llama.cpp would give each tensor of a GGUF file; only its header is read.

    Some types depend on whether a tensor has importance: name → float32 [in].

    Raises:
        InputError: llama.cpp is missing, refuses the file, or describes its plan in new words.
    """
    lines = _run(source, source.with_suffix(".none"), recipe, importance, dry_run=True)
    matches = map(PLANNED.match, lines)
    names = {match[1]: (match[3] or match[2]).upper() for match in matches if match}
    unknown = sorted(set(names.values()) - set(LAYOUTS))
    if not names or unknown:
        raise InputError(
            f"{PACKAGE} {package_version()}: its quantisation plan is not understood"
            f" ({unknown or 'no tensors'}); install 'edgeproof[llamacpp]' again"
        )
    return {name: LAYOUTS[kind] for name, kind in names.items()}


def quantise(
    source: Path, target: Path, recipe: Recipe, importance: Mapping[str, np.ndarray]
) -> None:
    """Quantise a GGUF file, with the importance of input channels: name → float32 [in].

    Raises:
        InputError: llama.cpp is missing or fails; the message has its last words.
    """
    _run(source, target, recipe, importance, dry_run=False)


def _run(
    source: Path,
    target: Path,
    recipe: Recipe,
    importance: Mapping[str, np.ndarray],
    *,
    dry_run: bool,
) -> list[str]:
    """Lines of llama.cpp's log."""
    api = _load()
    params = api.llama_model_quantize_default_params()
    params.nthread = os.cpu_count() or 1
    params.max_buf_size = BUFFER_BYTES
    params.ftype = recipe.file_type
    params.pure = recipe.pure
    params.dry_run = dry_run
    if recipe.embedding:
        params.token_embedding_type = LAYOUTS[recipe.embedding].type_id
    if recipe.output:
        params.output_tensor_type = LAYOUTS[recipe.output].type_id
    overrides = _overrides(api, recipe)
    params.tt_overrides = ctypes.cast(overrides, type(params.tt_overrides))
    params.imatrix = _importance(api, importance)
    with captured_log(api) as log:
        status = api.llama_model_quantize(
            os.fsencode(source), os.fsencode(target), ctypes.byref(params)
        )
    lines = "".join(log).splitlines()
    if status != 0:
        reason = " · ".join(lines[-2:]) or f"status {status}"
        raise InputError(f"llama.cpp cannot quantise to {recipe.linear}: {reason}")
    return lines


def _overrides(api: Any, recipe: Recipe) -> Any:
    """The patterns as a C array that ends with an empty entry; None without patterns."""
    if not recipe.patterns:
        return None
    array = (api.llama_model_tensor_override * (len(recipe.patterns) + 1))()
    for entry, (pattern, kind) in zip(array, recipe.patterns, strict=False):
        entry.pattern = pattern.encode()
        entry.type = LAYOUTS[kind].type_id
    return array


def _importance(api: Any, importance: Mapping[str, np.ndarray]) -> Any:
    """Channels' importance as a C array that ends with an empty entry; None without any."""
    if not importance:
        return None
    array = (api.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(array, importance.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return array


def _load() -> Any:
    try:
        return load_api()
    except ImportError:
        raise _missing() from None


def _missing() -> InputError:
    return InputError(
        "llama.cpp rounds K- and IQ-types, and all with --imatrix:"
        ' pip install "edgeproof[llamacpp]"'
        " (it compiles llama.cpp once, about 6 minutes on 2 cores)"
    )
