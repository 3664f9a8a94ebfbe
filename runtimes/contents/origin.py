"""The checkpoint's folder as expectations need it: its JSON files, and what its tokenizer says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeproof.checkpoints.chat_template import chat_templates
from edgeproof.checkpoints.config import settled
from edgeproof.checkpoints.settings import token_text, tokenizer_settings
from edgeproof.checkpoints.special_tokens import CONFIG, GENERATION, Said
from edgeproof.checkpoints.tokenizer import TOKENIZER, around, settled_tokenizer
from edgeproof.families import DecoderConfig, Family, family
from runtimes.config_facts import Facts, facts_of
from runtimes.said import has, read, said_of

Json = Mapping[str, Any]


class Origin:
    """A checkpoint's folder; a file that it has not is an empty object.

    `tokens` is how many its vocabulary is taken to have, if not as many as config.json says.

    Raises:
        InputError: by what reads a file that is no JSON object.
    """

    def __init__(self, folder: Path, tokens: int | None = None) -> None:
        self.folder = folder
        self._tokens = tokens

    def has(self, name: str) -> bool:
        """Whether it has a file of that name."""
        return has(self.folder, name)

    def _json(self, name: str) -> Json:
        return read(self.folder, name)

    @cached_property
    def config(self) -> Json:
        """config.json, without leftovers."""
        return settled(self._json(CONFIG))

    @property
    def family(self) -> Family:
        """The family of its `model_type`.

        Raises:
            InputError: there is none.
        """
        return family(str(self.config.get("model_type")))

    @cached_property
    def decoder(self) -> DecoderConfig:
        """What the family reads in config.json.

        Raises:
            InputError: it cannot.
        """
        return self.family.config(self.config)

    @cached_property
    def generation(self) -> Json:
        """generation_config.json."""
        return self._json(GENERATION)

    @cached_property
    def settings(self) -> Json:
        """What is said of special tokens beside tokenizer.json."""
        return tokenizer_settings(self._json)

    @cached_property
    def tokenizer(self) -> Json:
        """tokenizer.json as it is after loading."""
        return settled_tokenizer(self._json(TOKENIZER), self.settings, self.folder / TOKENIZER)

    @property
    def around(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before and after a text."""
        return around(self.tokenizer, self.folder / TOKENIZER)

    @cached_property
    def facts(self) -> Facts:
        """What config.json says of the model."""
        facts = facts_of(self.config)
        return facts if self._tokens is None else {**facts, "vocab_size": self._tokens}

    @cached_property
    def added(self) -> dict[str, int]:
        """Added tokens: text → id."""
        return dict(self.said.added)

    @cached_property
    def chat_templates(self) -> dict[str, str]:
        """Chat templates by name; none of a base model."""
        return chat_templates(self.folder, self.settings)

    @cached_property
    def said(self) -> Said:
        """Which tokens begin a text, end a reply and pad."""
        return said_of(self.folder)

    def special_text(self, role: str) -> str | None:
        """The text of the token of a role, as `bos`, that tokenizer_config.json names."""
        return token_text(self.settings, role, self.folder)

    def generation_id(self, role: str) -> Any:
        """The id, or list of ids, that generation uses for a role; None where nothing names one."""
        return self.said.role_id(role)

    def generation_number(self, name: str, default: float) -> float:
        """A number of generation_config.json."""
        value = self.generation.get(name)
        return value if isinstance(value, int | float) else default
