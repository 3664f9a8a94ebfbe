"""Render a checkpoint's Jinja chat template as transformers does, sandboxed.

Source: transformers `utils/chat_template_utils.py`. Its `strftime_now` is left out: a prompt that
depends on the clock has no place in an artifact.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError
from export.checkpoint import Checkpoint

Message = dict[str, str]

SETTINGS = "tokenizer_config.json"


def read_chat_template(checkpoint: Checkpoint) -> ChatTemplate | None:
    """The checkpoint's default chat template; None for a model that has none.

    Raises:
        InputError: it is not a Jinja template.
    """
    settings = checkpoint.json_file(SETTINGS)
    file = checkpoint.tokenizer_files.get("chat_template.jinja")
    if file is not None:
        return ChatTemplate(file, file.read_text("utf-8"), settings)
    text = settings.get("chat_template")
    if isinstance(text, list):
        text = {item.get("name"): item.get("template") for item in text}.get("default")
    if text is None:
        return None
    if not isinstance(text, str):
        raise InputError(f"{checkpoint.path / SETTINGS}: chat_template is not text")
    return ChatTemplate(checkpoint.path / SETTINGS, text, settings)


class ChatTemplate:
    """A compiled template. `source` is the file that it comes from."""

    def __init__(self, source: Path, text: str, settings: dict[str, Any]) -> None:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self.source = source
        self._errors = (TemplateError, TypeError, ValueError)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        self._special = {
            key: value["content"] if isinstance(value, dict) else value
            for key, value in settings.items()
            if key.endswith("_token") and isinstance(value, (str, dict))
        }
        try:
            self._template = environment.from_string(text)
        except self._errors as error:
            raise self._refusal(error) from None

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt for an empty reply to these messages.

        Raises:
            InputError: the template raises.
        """
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **self._special,
            )
        except self._errors as error:
            raise self._refusal(error) from None

    def _refusal(self, error: Exception) -> InputError:
        return InputError(f"{self.source}: its chat template cannot be rendered ({error})")


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def _raise_exception(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
