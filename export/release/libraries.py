"""The libraries of the extra `release`, imported where they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from export.errors import InputError


@contextmanager
def release_extra() -> Iterator[None]:
    """Imports in the block that fail say what to install.

    Raises:
        InputError: a library is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed; pip install 'edgeproof[release]'"
        ) from None
