"""`--text FILE`: the user's own text in place of the built-in suite."""

from __future__ import annotations

import re
from pathlib import Path

from edgeproof.errors import InputError
from runtimes.parity.suite import Prompt, Suite, in_reading_order, parse_prompts

# Intervals resample documents, so a long text becomes many: paragraphs, joined until they have this
# many characters (about 300 tokens), and cut where they have more than the second figure.
DOCUMENT_CHARACTERS = 1200
LONGEST_CHARACTERS = 4800


def read_suite(path: Path) -> Suite:
    """A .jsonl file of prompts (as `parse_prompts` reads them), or plain text.

    Raises:
        InputError: not readable, not UTF-8, malformed, or empty.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; convert it to UTF-8") from None
    if path.suffix == ".jsonl":
        prompts = parse_prompts(text.splitlines(), str(path))
    else:
        prompts = [
            Prompt(f"text-{number:04}", "text", part)
            for number, part in enumerate(documents(text), 1)
        ]
    if not prompts:
        raise InputError(f"{path}: no text; give a file with some pages")
    return Suite(path.name, in_reading_order(prompts))


def documents(text: str) -> list[str]:
    """Cut a text into documents, at blank lines where possible; nothing but blanks is lost."""
    result: list[str] = []
    current = ""
    for paragraph in re.split(r"\n\s*\n", text):
        current = f"{current}\n\n{paragraph}" if current else paragraph
        if len(current) >= DOCUMENT_CHARACTERS:
            result += _pieces(current)
            current = ""
    result += _pieces(current)
    return [part for part in result if part.strip()]


def _pieces(text: str) -> list[str]:
    return [
        text[start : start + LONGEST_CHARACTERS]
        for start in range(0, len(text), LONGEST_CHARACTERS)
    ]
