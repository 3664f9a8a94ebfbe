"""The text on which importance is measured, as token ids in chunks.

Without a file it is what the model itself says: texts sampled from its own distribution, from the
place on where its chat template has the user speak. No text of the parity suite is in it, which
would make the figures measured there too good.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.errors import InputError

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

CHUNK_TOKENS = 256
ROWS = 32  # sampled together; bounds the memory of the logits
SEED = 0
SELF = f"the model's own text (temperature 1, seed {SEED})"
MARK = "QUESTION"  # stands for the user's words


@dataclass(frozen=True)
class Calibration:
    """A text to read, or None for the model's own, at most `tokens` of it."""

    dataset: str
    text: str | None
    tokens: int

    def check(self) -> None:
        """Refuse a text without words.

        Raises:
            InputError: the file is blank.
        """
        if self.text is not None and not self.text.strip():
            raise InputError(f"--calibration {self.dataset}: no text; give a file with some pages")

    def chunks(self, runtime: TorchRuntime) -> list[list[int]]:
        """Token ids, at most CHUNK_TOKENS each; every chunk is a sequence of its own."""
        size = min(CHUNK_TOKENS, runtime.context)
        if self.text is None:
            return _own_text(runtime, self.tokens, size)
        ids = runtime.tokenize(self.text)[: self.tokens]
        return [ids[start : start + size] for start in range(0, len(ids), size)]


def read_calibration(path: Path | None, tokens: int) -> Calibration:
    """What `--calibration` names.

    Raises:
        InputError: it cannot be read as UTF-8 text.
    """
    if path is None:
        return Calibration(SELF, None, tokens)
    try:
        return Calibration(path.name, path.read_text("utf-8-sig"), tokens)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; convert it to UTF-8") from None


def _own_text(runtime: TorchRuntime, tokens: int, size: int) -> list[list[int]]:
    begin = _opening(runtime)
    count = -(-tokens // size)
    chunks: list[list[int]] = []
    while len(chunks) < count:
        rows = min(ROWS, count - len(chunks))
        chunks += runtime.sample(begin, rows, size, SEED + len(chunks))
    chunks[-1] = chunks[-1][: tokens - (count - 1) * size]
    return chunks


def _opening(runtime: TorchRuntime) -> list[int]:
    """The chat template up to the user's words; a base model's first token."""
    if runtime.has_chat_template:
        turn = [{"role": "user", "content": MARK}]
        before = runtime.render_chat(turn, add_generation_prompt=False).partition(MARK)[0]
        if ids := runtime.tokenize(before):
            return ids
    return [runtime.first_token]
