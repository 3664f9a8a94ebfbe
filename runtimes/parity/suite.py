"""The built-in text: chat prompts and plain documents, all authored for this project."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

SUITE = "text/suite.jsonl"


@dataclass(frozen=True)
class Prompt:
    """One entry of the suite: either chat messages or plain text."""

    id: str
    kind: str
    text: str | None = None
    messages: tuple[dict[str, str], ...] = ()


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
    def reply(self) -> tuple[int, ...]:
        """The reference's greedy reply; empty for plain text."""
        return self.ids[self.prompt_length :] if self.prompt_length else ()


def suite_text() -> str:
    """The suite's JSON lines."""
    return files("runtimes.parity").joinpath(SUITE).read_text("utf-8")


def load_suite() -> tuple[Prompt, ...]:
    """The built-in prompts."""
    rows = [json.loads(line) for line in suite_text().splitlines() if line]
    return tuple(
        Prompt(row["id"], row["kind"], row.get("text"), tuple(row.get("messages", ())))
        for row in rows
    )


def prompt_ids(
    prompt: Prompt,
    tokenize: Callable[[str], list[int]],
    render_chat: Callable[[Sequence[dict[str, str]]], str] | None,
    limit: int,
) -> tuple[tuple[int, ...], bool]:
    """At most `limit` token ids of a prompt, and whether a reply is to be generated after it.

    A base model has no chat template (`render_chat` is None): its chats become plain text.
    """
    if prompt.text is not None:
        return tuple(tokenize(prompt.text)[:limit]), False
    if render_chat is None:
        plain = "\n".join(item["content"] for item in prompt.messages)
        return tuple(tokenize(plain)[:limit]), False
    ids = tuple(tokenize(render_chat(prompt.messages)))
    return ids[:limit], len(ids) <= limit
