"""Which chat templates of a checkpoint's folder count.

Source: transformers `tokenization_utils_base.py`, `_from_pretrained`: chat_template.jinja and those
of additional_chat_templates/, each named as its file, go before what tokenizer_config.json says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeproof.checkpoints.settings import SETTINGS
from edgeproof.checkpoints.tokenizer import further_templates
from edgeproof.errors import InputError

TEMPLATE_FILE = "chat_template.jinja"
DEFAULT = "default"


def chat_templates(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name, the usual one as "default"; none of a base model.

    `settings` is the parsed tokenizer_config.json.

    Raises:
        InputError: a file cannot be read, or the settings have no text there.
    """
    files = _files(folder)
    if files:
        return {name: template_text(path) for name, path in files.items()}
    said = settings.get("chat_template")
    if said is None:
        return {}
    if isinstance(said, str):
        return {DEFAULT: said}
    try:
        if isinstance(said, Mapping):
            said = [{"name": name, "template": text} for name, text in said.items()]
        named = {item["name"]: item["template"] for item in said}
    except (TypeError, KeyError):
        named = {None: None}
    if not all(isinstance(text, str) for pair in named.items() for text in pair):
        raise InputError(f"{folder / SETTINGS}: chat_template is not text")
    return named


def template_text(path: Path) -> str:
    """A template's file.

    Raises:
        InputError: it cannot be read as UTF-8 text.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: cannot be read as UTF-8 text") from None


def template_source(folder: Path, name: str = DEFAULT) -> Path:
    """The file that a template stands in, for messages."""
    return _files(folder).get(name, folder / SETTINGS)


def _files(folder: Path) -> dict[str, Path]:
    file = folder / TEMPLATE_FILE
    files = {DEFAULT: file} if file.is_file() else {}
    return files | {path.stem: path for path in further_templates(folder)}
