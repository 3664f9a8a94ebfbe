"""A checkpoint's own Jinja chat template, ready to be rendered.

transformers' `strftime_now` is left out: a prompt that depends on the clock has no place in an
artifact.
"""

from __future__ import annotations

from edgeproof.errors import InputError
from edgeproof.templates import Renderer
from export.checkpoint import Checkpoint

SETTINGS = "tokenizer_config.json"


def read_chat_template(checkpoint: Checkpoint) -> Renderer | None:
    """The checkpoint's default chat template; None for a model that has none.

    Raises:
        InputError: it is not text.
    """
    settings = checkpoint.json_file(SETTINGS)
    special = {
        key: value["content"] if isinstance(value, dict) else value
        for key, value in settings.items()
        if key.endswith("_token") and isinstance(value, (str, dict))
    }
    file = checkpoint.tokenizer_files.get("chat_template.jinja")
    if file is not None:
        return Renderer(file, file.read_text("utf-8"), special, clock=False)
    text = settings.get("chat_template")
    if isinstance(text, list):
        text = {item.get("name"): item.get("template") for item in text}.get("default")
    if text is None:
        return None
    if not isinstance(text, str):
        raise InputError(f"{checkpoint.path / SETTINGS}: chat_template is not text")
    return Renderer(checkpoint.path / SETTINGS, text, special, clock=False)
