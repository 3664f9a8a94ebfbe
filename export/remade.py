"""Tell of an artifact whether an export of its variant would make the same bytes again.

What the bytes depend on is in the manifest: model, recipe, tools. Here the last two are compared
with what this edgeproof and the installed libraries are.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from edgeproof import __version__
from edgeproof.artifact import MANIFEST, Manifest, Variant, VariantRecord
from edgeproof.artifact.manifest import SCHEMA, recipe_digest
from edgeproof.errors import InputError
from export.format import Exporter
from export.formats import load_format
from export.rounding.recipe import as_asked

EDGEPROOF = "edgeproof"


class CannotTell(Exception):
    """Why it is not known what an export would make."""


def made_otherwise(manifest: Manifest) -> str | None:
    """Why an export would not make what the manifest names; None if it would.

    Raises:
        CannotTell: its format or a library that it needs is not here.
    """
    if manifest.schema != SCHEMA.current:
        return f"its {MANIFEST} has schema {manifest.schema}, not {SCHEMA.current}"
    version = manifest.tools.get(EDGEPROOF)
    if version != __version__:
        return f"made by edgeproof {version}"
    if manifest.recipe_digest != recipe_digest(manifest.model, manifest.variant, manifest.tools):
        return f"its {MANIFEST} was changed"
    try:
        form = load_format(manifest.variant.format)
    except InputError as error:
        raise CannotTell(str(error)) from None
    makers: list[tuple[Exporter[Any], Variant[Any]]] = [
        (maker, variant) for maker in (form, *form.engines.values()) for variant in maker.variants
    ]
    for maker, variant in makers:
        if variant.name == manifest.variant.name:
            if _asked(VariantRecord.of(variant)) != _asked(manifest.variant):
                return "its recipe is another one now"
            return _other_tools(manifest, _tools(maker, variant))
    return _other_tools(manifest, _all_tools(makers))


def _asked(variant: VariantRecord) -> VariantRecord:
    return replace(variant, recipe=as_asked(variant.recipe))


def _tools(maker: Exporter[Any], variant: Variant[Any]) -> dict[str, str]:
    try:
        return maker.tools_of(variant)
    except InputError as error:
        raise CannotTell(str(error)) from None


def _all_tools(makers: list[tuple[Exporter[Any], Variant[Any]]]) -> dict[str, str]:
    """Of all variants: one with options of its own may need more than that without."""
    found: dict[str, str] = {}
    for maker, variant in makers:
        with contextlib.suppress(InputError):
            found |= maker.tools_of(variant)
    return found


def _other_tools(manifest: Manifest, tools: dict[str, str]) -> str | None:
    for name, version in manifest.tools.items():
        if name != EDGEPROOF:
            if name not in tools:
                raise CannotTell(f"{name} is not installed")
            if version != tools[name]:
                return f"made with {name} {version}, this is {tools[name]}"
    return None
