"""The text that parity is measured on: built-in prompts, all authored for this project."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from importlib.resources import files

from edgeproof.errors import InputError
from edgeproof.json_text import parse_json
from runtimes.parity.order import reading_order

REPLY_TOKENS = 48
# Damage in long generations does not show before.
LONG_REPLY_TOKENS = 256


# Tokens of a probe: what chats reach, and what the longest contexts of small models do.
PROBE, LONGEST_PROBE = 2048, 8192


class Budget(str, Enum):
    """How much built-in text: each budget has the text of those before it, and more."""

    FAST = "fast"
    DEFAULT = "default"
    FULL = "full"

    @property
    def positions(self) -> int:
        """About how many positions count in its text, in SmolLM2's tokens."""
        return {Budget.FAST: 1_800, Budget.DEFAULT: 5_100, Budget.FULL: 40_000}[self]


@dataclass(frozen=True)
class Prompt:
    """One entry of a suite: either chat messages or plain text."""

    id: str
    kind: str
    text: str | None = None
    messages: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Suite:
    """Prompts, where they come from, and the greatest length of a runtime's reply to one.

    They are read in the order that they have here. `probe` is how many tokens the text of
    `runtimes.parity.long_range` has; 0: there is none.
    """

    name: str
    prompts: tuple[Prompt, ...]
    reply_tokens: int = REPLY_TOKENS
    probe: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 of all prompts."""
        content = json.dumps([asdict(prompt) for prompt in self.prompts], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Document:
    """Token ids on which every runtime is compared.

    For a chat, `ids` are the rendered prompt (`prompt_length` tokens) and the reference's own
    greedy reply; for plain text, `prompt_length` is 0.
    """

    id: str
    kind: str
    ids: tuple[int, ...]
    prompt_length: int

    @property
    def prompt(self) -> tuple[int, ...]:
        """The rendered prompt of a chat; empty for plain text."""
        return self.ids[: self.prompt_length]

    @property
    def reply(self) -> tuple[int, ...]:
        """The reference's greedy reply; empty for plain text."""
        return self.ids[self.prompt_length :] if self.prompt_length else ()


def built_in(budget: Budget) -> Suite:
    """The built-in prompts of a budget. The full one has a text for a context of 8192."""
    prompts = _written(budget)
    if budget is Budget.FULL:
        prompts.append(Prompt("long-01", "long", _joined(prompts)))
    full = budget is Budget.FULL
    length = LONG_REPLY_TOKENS if full else REPLY_TOKENS
    probe = LONGEST_PROBE if full else PROBE
    return Suite(f"built-in, {budget.value}", in_reading_order(prompts), length, probe)


def in_reading_order(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The same prompts, so that every beginning of a suite stands for all of it."""
    return tuple(prompts[index] for index in reading_order([prompt.kind for prompt in prompts]))


def long_text() -> str:
    """All built-in prose, code and the like as one text: longer than any probe."""
    return _joined(_written(Budget.FULL))


def _written(budget: Budget) -> list[Prompt]:
    """The prompts of a budget and of those before it, as their files have them."""
    prompts: list[Prompt] = []
    for part in Budget:
        text = files("runtimes.parity").joinpath(f"text/{part.value}.jsonl").read_text("utf-8")
        prompts += parse_prompts(text.splitlines(), part.value)
        if part is budget:
            break
    return prompts


def _joined(prompts: Iterable[Prompt]) -> str:
    return "\n\n".join(prompt.text for prompt in prompts if prompt.text is not None)


def parse_prompts(lines: Iterable[str], name: str) -> list[Prompt]:
    """Prompts as JSON lines: `text`, or `messages` of role and content; `id` and `kind` if wanted.

    Raises:
        InputError: naming the line.
    """
    prompts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            text = row.get("text")
            messages = tuple(
                {"role": str(item["role"]), "content": str(item["content"])}
                for item in row.get("messages", ())
            )
        except (ValueError, AttributeError, KeyError, TypeError):
            raise InputError(
                f"{name}, line {number}: not a JSON object with text or messages"
            ) from None
        if (isinstance(text, str) and text != "") == bool(messages):
            raise InputError(f"{name}, line {number}: needs either text or messages")
        if messages and not any(message["content"] for message in messages):
            raise InputError(f"{name}, line {number}: its messages have no content")
        kind = str(row.get("kind", "chat" if messages else "text"))
        prompts.append(Prompt(str(row.get("id", f"line-{number}")), kind, text, messages))
    return prompts


def prompt_ids(
    prompt: Prompt,
    tokenize: Callable[[str], list[int]],
    render_chat: Callable[[Sequence[dict[str, str]]], str] | None,
    context: int,
    reply_tokens: int,
) -> tuple[tuple[int, ...], bool]:
    """Token ids of a prompt, and whether a reply of `reply_tokens` is to be generated after it.

    Text is cut to the context, a chat to what leaves room for the reply. A base model has no chat
    template (`render_chat` is None): its chats become plain text.
    """
    if prompt.text is not None:
        return tuple(tokenize(prompt.text)[:context]), False
    limit = context - reply_tokens
    if render_chat is None:
        plain = "\n".join(item["content"] for item in prompt.messages)
        return tuple(tokenize(plain)[:limit]), False
    ids = tuple(tokenize(render_chat(prompt.messages)))
    return ids[:limit], len(ids) <= limit
