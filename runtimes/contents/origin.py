"""The checkpoint's folder as expectations need it: its JSON files, and what its tokenizer says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.chat_template import chat_template
from edgeproof.checkpoints.config import settled
from edgeproof.families import DecoderConfig, Family, family
from runtimes.config_facts import CONFIG, GENERATION, Facts, facts_of

Json = Mapping[str, Any]


class Origin:
    """A checkpoint's folder; a file that it has not is an empty object.

    Raises:
        InputError: by what reads a file that is no JSON object.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        """Whether it has a file of that name."""
        return (self.folder / name).is_file()

    def _json(self, name: str) -> Json:
        read: Json = read_json(self.folder / name) if self.has(name) else {}
        return read

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
        """tokenizer_config.json."""
        return self._json("tokenizer_config.json")

    @cached_property
    def tokenizer(self) -> Json:
        """tokenizer.json."""
        return self._json("tokenizer.json")

    @cached_property
    def facts(self) -> Facts:
        """What config.json says of the model."""
        return facts_of(self.config)

    @cached_property
    def added(self) -> dict[str, int]:
        """Added tokens: text → id."""
        tokens = self.tokenizer.get("added_tokens") or ()
        return {str(token["content"]): int(token["id"]) for token in tokens}

    @cached_property
    def chat_template(self) -> Any:
        """The chat template's text, or a list of named ones; None of a base model."""
        return chat_template(self.folder, self.settings)

    def special_text(self, role: str) -> str | None:
        """The text of the token of a role, as `bos`, that tokenizer_config.json names."""
        token = self.settings.get(f"{role}_token")
        text = token.get("content") if isinstance(token, dict) else token
        return text if isinstance(text, str) else None

    def generation_id(self, role: str) -> Any:
        """The id, or list of ids, that generation uses for a role; None where nothing names one."""
        text = self.special_text(role)
        said = (
            self.generation.get(f"{role}_token_id"),
            self.config.get(f"{role}_token_id"),
            None if text is None else self.added.get(text),
        )
        return next((value for value in said if value is not None), None)

    def generation_number(self, name: str, default: float) -> float:
        """A number of generation_config.json."""
        value = self.generation.get(name)
        return value if isinstance(value, int | float) else default
