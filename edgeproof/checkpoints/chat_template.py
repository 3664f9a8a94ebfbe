"""Which chat template of a checkpoint's folder counts.

Source: transformers `tokenization_utils_base.py`, `_from_pretrained`: chat_template.jinja goes
before what tokenizer_config.json says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATE_FILE = "chat_template.jinja"


def chat_template(folder: Path, settings: Mapping[str, Any]) -> Any:
    """The template's text, or what tokenizer_config.json has in its place; None of a base model.

    `settings` is the parsed tokenizer_config.json.
    """
    file = folder / TEMPLATE_FILE
    return file.read_text("utf-8") if file.is_file() else settings.get("chat_template")
