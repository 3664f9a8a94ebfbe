"""README.md from a GGUF file's metadata: a model card's front matter with what `general.*` says.

Only facts on origin and rights: names, versions and sizes are read from the model's name again.
Keys: gguf-py's constants.py (Keys.General) and, for the card,
https://huggingface.co/docs/hub/model-cards#model-card-metadata.
"""

from __future__ import annotations

import re
from typing import Any

from export.sources.gguf_metadata import Metadata

# The card's key → that of `general.`: texts, lists, and counted models or data sets.
TEXTS = {
    "author": "author",
    "organization": "organization",
    "description": "description",
    "license": "license",
    "license_name": "license.name",
    "license_link": "license.link",
}
LISTS = {"language": "languages", "tags": "tags"}
ORIGINS = {"base_model": "base_model", "datasets": "dataset"}
ORIGIN_KEYS = ("name", "author", "version", "organization", "description", "url", "doi", "repo_url")
HUB_PAGE = re.compile(r"https?://huggingface\.co/(?:datasets/)?([^/]+/[^/]+)")
MAX_ORIGINS = 1000  # bounds what a hostile count makes us do


def model_card(meta: Metadata) -> bytes | None:
    """README.md, or None where the file says nothing of the kind; a wrong type is left out."""
    facts: dict[str, Any] = {card: _text(meta, key) for card, key in TEXTS.items()}
    facts |= {card: _strings(meta.value(f"general.{key}")) for card, key in LISTS.items()}
    facts |= {card: _origins(meta, key) for card, key in ORIGINS.items()}
    said = {key: fact for key, fact in facts.items() if fact}
    if not said:
        return None
    import yaml  # only where there is something to write

    front = yaml.safe_dump(said, sort_keys=False, width=1 << 30)
    return f"---\n{front}---\n".encode()


def _origins(meta: Metadata, kind: str) -> list[Any]:
    """Hub ids where the pages are the hub's, else all that is said of each."""
    count = meta.value(f"general.{kind}.count")
    if not isinstance(count, int) or not 0 < count <= MAX_ORIGINS:
        return []
    origins: list[Any] = []
    for index in range(count):
        facts = {key: _text(meta, f"{kind}.{index}.{key}") for key in ORIGIN_KEYS}
        page = HUB_PAGE.fullmatch(facts["repo_url"] or "")
        origins.append(page[1] if page else {key: text for key, text in facts.items() if text})
    return [origin for origin in origins if origin]


def _text(meta: Metadata, key: str) -> str | None:
    value = meta.value(f"general.{key}")
    return value if isinstance(value, str) else None


def _strings(value: Any) -> list[str]:
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, str)]
