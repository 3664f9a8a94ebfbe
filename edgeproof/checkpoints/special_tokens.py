"""Which tokens begin a text, end a reply and pad: one rule for exporters, reference and parity.

The first of these that names a token for a role counts: generation_config.json, config.json, the
tokenizer's settings, and what transformers' class assumes where config.json has no such key. Where
generation_config.json is there and names no end, transformers would never stop; the next one counts
here, as nobody wants that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeproof.checkpoints.settings import SETTINGS, token_text
from edgeproof.errors import InputError

ROLES = ("pad", "bos", "eos")
GENERATION, CONFIG = "generation_config.json", "config.json"

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """What the files of a checkpoint's folder say: parsed documents, {} for one that is absent.

    `added` are the tokenizer's added tokens, text → id; `assumed` is what transformers' class of
    the model assumes, by role.
    """

    folder: Path
    generation: Json
    config: Json
    settings: Json
    added: Mapping[str, int]
    assumed: Mapping[str, int] = field(default_factory=dict)

    def role_id(self, role: str) -> int | list[int] | None:
        """The id of a role, or a list of ids, as the file that counts has it; None for none.

        Raises:
            InputError: it is no token's number.
        """
        for name, document in ((GENERATION, self.generation), (CONFIG, self.config)):
            value = document.get(f"{role}_token_id")
            if value is not None:
                _check(f"{self.folder / name}: {role}_token_id", value)
                found: int | list[int] = value
                return found
        named = self.named(role)
        if named is None and f"{role}_token_id" not in self.config:
            return self.assumed.get(role)
        return named

    @property
    def role_ids(self) -> dict[str, Any]:
        """`pad_token_id`, `bos_token_id` and `eos_token_id`, as `role_id` gives them."""
        return {f"{role}_token_id": self.role_id(role) for role in ROLES}

    def named(self, role: str) -> int | None:
        """The id of the token that the tokenizer's settings name for a role."""
        text = token_text(self.settings, role, self.folder)
        return None if text is None else self.added.get(text)

    def stops(self, vocab: int) -> tuple[int, ...]:
        """The tokens that end a reply, those of the vocabulary, in the order in which they stand.

        Raises:
            InputError: as for `role_id`.
        """
        ids = listed(self.role_id("eos"))
        return tuple(dict.fromkeys(index for index in ids if 0 <= index < vocab))

    def disagreement(self) -> str | None:
        """What users should know where two files name different ends of a reply.

        Raises:
            InputError: as for `role_id`.
        """
        named, stops = self.named("eos"), listed(self.role_id("eos"))
        if named is None or not stops or named in stops:
            return None
        where = GENERATION if self.generation.get("eos_token_id") is not None else CONFIG
        text = token_text(self.settings, "eos", self.folder)
        return (
            f"{where} ends replies with {shown(stops)}, {SETTINGS} names"
            f" {text!r} ({named}): transformers stops at the first,"
            " chat programs may stop at both"
        )


def listed(value: int | list[int] | None) -> list[int]:
    """Ids as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def shown(ids: Sequence[int]) -> str:
    """Ids for people."""
    return ", ".join(map(str, ids))


def _check(where: str, value: Any) -> None:
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        raise InputError(f"{where} must be a token's number or a list of them, not {value!r}")
