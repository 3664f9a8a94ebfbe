"""`resolve`: hub id, local folder, .gguf file or a built-in model → a checkpoint folder here.

Invariant: importing this module and resolving a warm built-in model imports no heavy library; each
kind of model has a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgeproof.checkpoints.origin import HUB_ID
from edgeproof.errors import InputError
from export.sources.bundled import resolve_bundled
from export.sources.grown import GROWN, resolve_grown
from export.sources.source import Source

BUNDLED = "bundled"
BUILT_IN: dict[str, Callable[[], Source]] = {
    BUNDLED: resolve_bundled,
    **{name: partial(resolve_grown, name) for name in GROWN},
}
GGUF_MAGIC = b"GGUF"


def resolve(model: str, revision: str | None = None) -> Source:
    """Find the model, downloading or converting it into the cache where needed.

    What exists on this disk wins over a hub id of the same spelling; `./bundled` names a folder.

    Args:
        model: a name of `BUILT_IN`, a checkpoint folder, a `.gguf` file, or a hub id `org/name`.
        revision: branch, tag or commit; only for hub ids.

    Raises:
        InputError: nothing is there, it cannot be reached, or it is not a supported model.
    """
    if model not in BUILT_IN and not _on_disk(model) and HUB_ID.fullmatch(model):
        if model.endswith(".gguf"):
            raise InputError(f"{model}: no such file")
        from export.sources.hub import resolve_hub

        return resolve_hub(model, revision or None)
    if revision:
        raise InputError(f"--revision {revision} applies to hub ids (org/name), not to {model}")
    if model in BUILT_IN:
        return BUILT_IN[model]()
    return _resolve_path(model)


def _resolve_path(model: str) -> Source:
    if not _on_disk(model):
        raise InputError(
            f"{model!r}: no such folder or .gguf file, and not a hub id (org/name);"
            " the built-in model is called 'bundled'"
        )
    path = Path(model).expanduser()
    if path.is_dir():
        from export.sources.local import resolve_local

        return resolve_local(path)
    if path.suffix == ".gguf" or _starts_with(path, GGUF_MAGIC):
        from export.sources.gguf_file import resolve_gguf

        return resolve_gguf(path)
    raise InputError(f"{path}: expected a checkpoint folder or a .gguf file; name its folder?")


def _on_disk(model: str) -> bool:
    try:
        return bool(model) and Path(model).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, unreadable, no such user, a NUL
        return False


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
