"""llama.cpp's low-level API from llama-cpp-python, imported when it is needed."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

PACKAGE = "llama-cpp-python"


def installed_version() -> str | None:
    """The version of llama-cpp-python, without loading it; None where it is not installed."""
    from importlib import metadata  # slow, and most exports do not ask

    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def load_api() -> Any:
    """The low-level API.

    Raises:
        ImportError: it is not installed.
    """
    from llama_cpp import llama_cpp

    return llama_cpp


@contextlib.contextmanager
def captured_log(api: Any) -> Iterator[list[str]]:
    """Collect llama.cpp's log, which comes in pieces of lines, instead of printing it."""
    pieces: list[str] = []

    @api.llama_log_callback  # type: ignore[untyped-decorator]
    def collect(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        pieces.append(text.decode(errors="replace"))

    previous, user_data = api.llama_log_callback(), ctypes.c_void_p()
    api.llama_log_get(ctypes.byref(previous), ctypes.byref(user_data))
    api.llama_log_set(collect, None)
    try:
        yield pieces
    finally:
        api.llama_log_set(previous, user_data)
