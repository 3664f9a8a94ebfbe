"""`resolve`: hub id, local folder, .gguf file or a built-in model → a checkpoint folder here.

With adapters, or where the folder is one itself, that is the base with them merged in. Weights that
are stored quantised are read as floats, into a checkpoint in the cache.

Invariant: importing this module and resolving a warm built-in model imports no heavy library; each
kind of model has a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from edgeproof.checkpoints.config import quantisation
from edgeproof.checkpoints.json_object import read_object
from edgeproof.checkpoints.origin import HUB_ID
from edgeproof.errors import InputError
from export.sources.adapters.request import AdapterRequest
from export.sources.bundled import BUNDLED, resolve_bundled
from export.sources.grown import GROWN, resolve_grown
from export.sources.on_disk import on_disk
from export.sources.source import Source

BUILT_IN: dict[str, Callable[[], Source]] = {
    BUNDLED: resolve_bundled,
    **{name: partial(resolve_grown, name) for name in GROWN},
}
GGUF_MAGIC = b"GGUF"


def resolve(
    model: str, revision: str | None = None, adapters: Sequence[AdapterRequest] = ()
) -> Source:
    """Find the model, downloading, converting or merging it into the cache where needed.

    What exists on this disk wins over a hub id of the same spelling; `./bundled` names a folder.

    Args:
        model: a name of `BUILT_IN`, a checkpoint folder, a `.gguf` file, or a hub id `org/name`.
        revision: branch, tag or commit; only for hub ids.
        adapters: what is merged into it, in this order.

    Raises:
        InputError: nothing is there, it cannot be reached, it is not a supported model, or an
            adapter does not fit it.
    """
    if model not in BUILT_IN and on_disk(model):
        from export.sources.adapters.place import is_adapter

        if is_adapter(Path(model).expanduser()):
            return _resolve_adapter(model, revision, adapters)
    source = _resolve_model(model, revision)
    if not adapters:
        return source
    from export.sources.adapters.merged import resolve_merged

    return resolve_merged(source, adapters)


def _resolve_model(model: str, revision: str | None) -> Source:
    if model not in BUILT_IN and not on_disk(model) and HUB_ID.fullmatch(model):
        if model.endswith(".gguf"):
            raise InputError(f"{model}: no such file")
        from export.sources.hub import resolve_hub

        return _plain(resolve_hub(model, revision or None))
    if revision:
        raise InputError(f"--revision {revision} applies to hub ids (org/name), not to {model}")
    if model in BUILT_IN:
        return BUILT_IN[model]()
    return _resolve_path(model)


def _plain(source: Source) -> Source:
    """The source with its weights as floats, whatever they are stored as.

    A config.json that cannot be read is left to whoever opens the folder.
    """
    try:
        method = quantisation(read_object(source.path / "config.json"))
    except InputError:
        return source
    if method is None:
        return source
    from export.sources.quantised.dequantised import dequantised

    return dequantised(source)


def _resolve_path(model: str) -> Source:
    if not on_disk(model):
        raise InputError(
            f"{model!r}: no such folder or .gguf file, and not a hub id (org/name);"
            " the built-in model is called 'bundled'"
        )
    path = Path(model).expanduser()
    if path.is_dir():
        from export.sources.local import resolve_local

        return _plain(resolve_local(path))
    if path.suffix == ".gguf" or _starts_with(path, GGUF_MAGIC):
        from export.sources.gguf_file import resolve_gguf

        return resolve_gguf(path)
    raise InputError(f"{path}: expected a checkpoint folder or a .gguf file; name its folder?")


def _resolve_adapter(
    folder: str, revision: str | None, adapters: Sequence[AdapterRequest]
) -> Source:
    """An adapter that is given as the model: merged into the base that it names."""
    from export.sources.adapters.base import find_base
    from export.sources.adapters.config import read_config

    config = read_config(Path(folder).expanduser())
    base, its_revision = find_base(config)
    return resolve(base, revision or its_revision, [AdapterRequest(folder), *adapters])


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
