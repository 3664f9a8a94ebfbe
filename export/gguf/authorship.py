"""`general.*` metadata on who made a model from what, from its card and its name.

Keys, their order and the heuristics are llama.cpp's converter's (gguf-py/gguf/metadata.py): the
card's word goes first, then the name's. What a card says in a form that has no place in GGUF
(a nested list of tags) is left out, as there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgeproof.errors import InputError
from export.gguf.container import FLOAT32, INT32, STRING, UINT32, MetadataEntry
from export.gguf.naming import NameParts, split_name

Card = Mapping[str, Any]

# `general.` key → the card's keys for it, the first that is there counts.
CARD_KEYS = {
    "name": ("name", "model_name"),
    "author": ("author", "model_author", "model_creator"),
    "version": ("version", "model_version"),
    "organization": ("organization", "model_organization"),
    "finetune": ("finetune", "model_finetune"),
    "basename": ("basename", "model_basename", "model_type"),
    "description": ("description", "model_description"),
    "size_label": ("size_label", "model_size_label"),
    "license": ("license",),
    "license.name": ("license_name",),
    "license.link": ("license_link",),
    "source.url": ("url", "model_url"),
    "source.doi": ("doi", "model_doi"),
    "source.uuid": ("uuid", "model_uuid"),
    "source.repo_url": ("repo_url", "model_repo_url"),
}
# Lists: all of the card's keys together.
CARD_LISTS = {"tags": ("tags", "pipeline_tag"), "languages": ("languages", "language")}
# Lists of models and datasets: one of the card's keys.
CARD_ORIGINS = {
    "base_model": ("base_model", "base_models", "base_model_sources"),
    "dataset": ("datasets", "dataset", "dataset_sources"),
}
ORIGIN_KEYS = (
    "name",
    "author",
    "version",
    "organization",
    "description",
    "url",
    "doi",
    "uuid",
    "repo_url",
)
SAMPLING = (
    ("sequence", "sequence", STRING),
    ("top_k", "top_k", INT32),
    ("top_p", "top_p", FLOAT32),
    ("min_p", "min_p", FLOAT32),
    ("xtc_probability", "xtc_probability", FLOAT32),
    ("xtc_threshold", "xtc_threshold", FLOAT32),
    ("temp", "temperature", FLOAT32),
    ("penalty_last_n", "penalty_last_n", INT32),
    ("penalty_repeat", "penalty_repeat", FLOAT32),
    ("mirostat", "mirostat", INT32),
    ("mirostat_tau", "mirostat_tau", FLOAT32),
    ("mirostat_eta", "mirostat_eta", FLOAT32),
)
HUB = "https://huggingface.co"
HUB_PAGE = re.compile(r"https?://huggingface\.co/([^/]+/[^/]+)")
URL_SCHEMES = ("http://", "https://", "ssh://")


def sampling_entries(generation: Mapping[str, Any]) -> list[MetadataEntry]:
    """What generation_config.json recommends; a value of another kind is left out."""
    entries = [
        MetadataEntry(f"general.sampling.{key}", kind, generation[field])
        for key, field, kind in SAMPLING
        if generation.get(field) is not None
    ]
    return [entry for entry in entries if _fits(entry)]


def general_texts(card: Card, parts: NameParts, source: Mapping[str, str]) -> dict[str, str]:
    """`general.` key → text, in the file's order; `source` is used where the card has none."""
    named = {
        "name": parts.title,
        "version": parts.version,
        "organization": parts.organization,
        "finetune": parts.finetune,
        "basename": parts.basename,
        "size_label": parts.size_label,
        **source,
    }
    texts = {}
    for key, fields in CARD_KEYS.items():
        said = next((card[field] for field in fields if card.get(field) is not None), None)
        text = ",".join(_texts(said)) if said is not None else named.get(key)
        if text:
            texts[key] = text
    return texts


def origin_entries(card: Card, parameters: int) -> list[MetadataEntry]:
    """Base models and datasets, counted, each with what its hub id or URL says."""
    entries = []
    for kind, fields in CARD_ORIGINS.items():
        present = [field for field in fields if field in card]
        if not present:
            continue
        said = card[present[0]]
        origins = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        entries.append(MetadataEntry(f"general.{kind}.count", UINT32, len(origins)))
        for index, origin in enumerate(origins):
            facts = _origin(origin, parameters)
            entries += [
                MetadataEntry(f"general.{kind}.{index}.{key}", STRING, text)
                for key in ORIGIN_KEYS
                if (text := ",".join(_texts(facts.get(key))))
            ]
    return entries


def list_entries(card: Card) -> list[MetadataEntry]:
    """Tags and languages."""
    lists = {
        key: [text for field in fields for text in _texts(card.get(field))]
        for key, fields in CARD_LISTS.items()
    }
    return [MetadataEntry(f"general.{key}", STRING, texts) for key, texts in lists.items() if texts]


def _origin(origin: Any, parameters: int) -> Mapping[str, Any]:
    """A mapping is taken as it is; a URL outside the hub says nothing but itself."""
    if isinstance(origin, dict):
        return origin
    if not isinstance(origin, str):
        return {}
    page = HUB_PAGE.fullmatch(origin)
    if origin.startswith(URL_SCHEMES) and page is None:
        return {"repo_url": origin}
    parts = split_name(page[1] if page else origin, parameters)
    url = origin if page else f"{HUB}/{origin}" if parts.organization else None
    return {
        "name": parts.title,
        "organization": parts.organization,
        "version": parts.version,
        "repo_url": url,
    }


def _texts(value: Any) -> list[str]:
    """A text or number, or a list of them, as texts that UTF-8 can hold."""
    values = value if isinstance(value, list) else [value]
    plain = [v for v in values if isinstance(v, str | int | float) and not isinstance(v, bool)]
    return [str(v).encode("utf-8", "replace").decode() for v in plain if v != ""]


def _fits(entry: MetadataEntry) -> bool:
    try:
        entry.encode()
    except (InputError, TypeError, ValueError, AttributeError):
        return False
    return True
