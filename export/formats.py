"""The registry of export formats; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgeproof.errors import InputError
from export.format import Format

MODULES = {"onnx": "export.onnx", "gguf": "export.gguf", "mlc": "export.mlc"}


def load_format(name: str) -> Format[Any]:
    """The format of that name.

    Raises:
        InputError: unknown format.
    """
    if name not in MODULES:
        raise InputError(f"unknown format {name!r}; choose from {', '.join(MODULES)}")
    form: Format[Any] = import_module(MODULES[name]).FORMAT
    return form
