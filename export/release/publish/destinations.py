"""Which destination an address means."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from edgeproof.errors import InputError
from export.release.publish.plan import Destination, VerifiedRelease

# Prefix → module and class, imported when it is used.
PREFIXES = {
    "dir": ("export.release.publish.folder", "Folder"),
    "hub": ("export.release.publish.hub", "Hub"),
    "github": ("export.release.publish.github", "GitHub"),
}
OBJECTS = ("export.release.publish.objects", "Objects")


def open_destination(publication: VerifiedRelease, address: str) -> Destination:
    """The destination that `--to` names.

    Raises:
        InputError: no such destination, or it cannot be opened.
    """
    prefix, colon, rest = address.partition(":")
    if not (colon and rest):
        known = ", ".join(f"{name}:…" for name in PREFIXES)
        raise InputError(f"--to {address}: not {known} or an fsspec URL such as s3://bucket/folder")
    (module, name), target = (PREFIXES[prefix], rest) if prefix in PREFIXES else (OBJECTS, address)
    opened: Callable[[VerifiedRelease, str], Destination] = getattr(import_module(module), name)
    return opened(publication, target)
