"""The facts in a model card: the YAML front matter of README.md.

Format: https://huggingface.co/docs/hub/model-cards#model-card-metadata. A card is written by hand
and no weight depends on it, so a malformed one costs its facts and a warning, not the export.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError

MODEL_CARD = "README.md"
FENCE = "---"

log = logging.getLogger(__name__)


def read_model_card(folder: Path) -> dict[str, Any]:
    """The card's front matter, or {} where there is none or it is malformed (then with a warning).

    Raises:
        InputError: the file exists but cannot be read.
    """
    path = folder / MODEL_CARD
    try:
        text = path.read_text("utf-8") if path.is_file() else ""
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        return _ignored(path, "it is not UTF-8 text")
    lines = text.splitlines()
    if not lines or lines[0] != FENCE:
        return {}
    import yaml  # only where there is something to parse

    end = lines.index(FENCE, 1) if FENCE in lines[1:] else len(lines)
    try:
        facts = yaml.safe_load(_repaired("\n".join(lines[1:end]) + "\n"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # Its lines count from 0 and below the first fence.
        return _ignored(path, f"line {mark.line + 2} is not YAML" if mark else "it is not YAML")
    except (ValueError, RecursionError):  # a date such as 2024-13-01; brackets without end
        return _ignored(path, "it is not YAML")
    if facts is None:
        return {}
    return facts if isinstance(facts, dict) else _ignored(path, "it is not a list of key: value")


def _repaired(text: str) -> str:
    """As llama.cpp's converter reads cards: Norwegian ("- no") is no boolean, tabs indent."""
    return text.replace("- no\n", '- "no"\n').replace("\t", "  ")


def _ignored(path: Path, reason: str) -> dict[str, Any]:
    log.warning("%s: the front matter is ignored: %s", path, reason)
    return {}
