"""Chat templates in Jinja, rendered as runtimes do, without exporters' code.

Source: transformers `utils/chat_template_utils.py`, whose settings llama.cpp and transformers.js
share. Templates are programs of strangers: they run in Jinja's sandbox.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError

Message = Mapping[str, str]
# Messages → the prompt for the next reply; None where the format has no way to say them.
Render = Callable[[Sequence[Message]], str | None]


def jinja_template(source: Path, text: str, special: Mapping[str, str]) -> Render:
    """A template as a function; `special` are the tokenizer's tokens by name, such as bos_token.

    `source` is named in the InputError of one that cannot be rendered.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    errors = (TemplateError, TypeError, ValueError)

    def render(messages: Sequence[Message]) -> str:
        try:
            return environment.from_string(text).render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **special,
            )
        except errors as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{source}: its chat template cannot be rendered: {reason}") from None

    return render


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def _raise_exception(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
