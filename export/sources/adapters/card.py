"""README.md of a merged checkpoint: the facts that hold for base and adapters together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeproof.checkpoints.origin import HUB_ID
from export.checkpoint.merge_record import MergeRecord

UNKNOWN = "unknown"  # the hub's own word for a licence that nobody names
LISTS = ("language", "datasets")


def merged_card(
    record: MergeRecord, base: Mapping[str, Any], adapters: Sequence[Mapping[str, Any]]
) -> bytes:
    """Front matter and a line on each part; `base` and `adapters` are their cards' facts.

    Licences are listed, that of the base first; names and sizes are left out, since they are of
    another model.
    """
    import yaml

    cards = [base, *adapters]
    parts = [record.base, *record.adapters]
    licences = list(dict.fromkeys(part.license or UNKNOWN for part in parts))
    hubs = [part.repo for part in parts if part.repo and HUB_ID.fullmatch(part.repo)]
    facts: dict[str, Any] = {
        "license": None if licences == [UNKNOWN] else _one(licences),
        **{key: _one(_together(cards, key)) for key in ("license_name", "license_link", *LISTS)},
        "base_model": _one(hubs or _together([base], "base_model")),
    }
    said = {key: value for key, value in facts.items() if value}
    front = yaml.safe_dump(said, sort_keys=False, allow_unicode=True) if said else ""
    lines = [
        f"- {part.title}: {part.license or 'no licence named'}"
        + (f", weight {weight:g}" if weight != 1 else "")
        for part, weight in zip(parts, [1.0, *(a.weight for a in record.adapters)], strict=True)
    ]
    return (
        f"---\n{front}---\n\nAdapters merged into their base:\n\n{chr(10).join(lines)}\n".encode()
    )


def licence_of(facts: Mapping[str, Any]) -> str | None:
    """A card's licence as one text; None where it names none."""
    said = facts.get("license")
    texts = said if isinstance(said, list) else [said]
    found = [text for text in texts if isinstance(text, str) and text]
    return ", ".join(found) or None


def _together(cards: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    found: list[Any] = []
    for card in cards:
        value = card.get(key)
        items = value if isinstance(value, list) else [value]
        found += [item for item in items if item and item not in found]
    return found


def _one(values: list[Any]) -> Any:
    """A list of one as the one, as cards are mostly written."""
    return values[0] if len(values) == 1 else values
