"""Chat templates in Jinja, rendered as runtimes do, without exporters' code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgeproof.templates import Message, Renderer

# Messages → the prompt for the next reply; None where the format has no way to say them.
Render = Callable[[Sequence[Message]], str | None]


def jinja_template(source: Path, text: str, special: Mapping[str, str]) -> Render:
    """A template as a function; `special` are the tokenizer's tokens by name, such as bos_token.

    `source` is named in the InputError of one that cannot be rendered.
    """
    return Renderer(source, text, special).render


__all__ = ["Message", "Render", "jinja_template"]
