"""A checkpoint's text: its tokenizer and chat template in transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeproof.checkpoints.chat_template import DEFAULT
from edgeproof.checkpoints.special_tokens import Said, listed
from edgeproof.checkpoints.tokenizer import no_text
from edgeproof.errors import InputError
from edgeproof.templates import Renderer
from runtimes.protocol import AddedToken


class CheckpointText:
    """What of the reference has to do with text; `said` is what the files say of special tokens."""

    def __init__(self, tokenizer: Any, said: Said, vocabulary: int) -> None:
        self._tokenizer, self._said, self.vocabulary = tokenizer, said, vocabulary

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The ids that end a reply: see `edgeproof.checkpoints.special_tokens`."""
        return frozenset(self._said.stops(self.vocabulary))

    @property
    def begin_token(self) -> int | None:
        """The id that begins a text, as the checkpoint says; None: it names none."""
        return next(iter(listed(self._said.role_id("bos"))), None)

    @property
    def first_token(self) -> int:
        """The id that a text begins with: the checkpoint's, or a stop token, or 0."""
        begin = self.begin_token
        return min(self.stop_tokens, default=0) if begin is None else begin

    @property
    def special_tokens(self) -> frozenset[int]:
        """The ids that transformers leaves out of a text with `skip_special_tokens`."""
        added = self._tokenizer.added_tokens_decoder
        return frozenset(index for index, token in added.items() if token.special)

    @property
    def has_chat_template(self) -> bool:
        """Whether `render_chat` can work: transformers takes no template that has to be named."""
        template = self._tokenizer.chat_template
        return template is not None and (not isinstance(template, dict) or DEFAULT in template)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens in the text parsed, none added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def tokenize_whole(self, text: str) -> list[int]:
        """Token ids of `text` with what transformers puts around it."""
        return list(self._tokenizer.encode(text, verbose=False))

    @property
    def added_tokens(self) -> tuple[AddedToken, ...]:
        """The tokenizer's added tokens that a text may have, by id."""
        found = sorted(self._tokenizer.added_tokens_decoder.items())
        return tuple(
            AddedToken(token.content, token.lstrip or token.rstrip or token.single_word)
            for index, token in found
            if not no_text(token.content, index, self.vocabulary)
        )

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        text: str = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text, by the checkpoint's own chat template in transformers.

        Raises:
            InputError: the checkpoint has no chat template, or one that cannot be rendered.
        """
        if not self.has_chat_template:
            raise InputError(f"{self._tokenizer.name_or_path}: it has no chat template")
        self._bounded_template.render(messages, add_generation_prompt=add_generation_prompt)
        text: str = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        return text

    @cached_property
    def _bounded_template(self) -> Renderer:
        """Tells that a template ends, before transformers renders it without any bound."""
        tokenizer = self._tokenizer
        template, tokens = tokenizer.get_chat_template(), tokenizer.special_tokens_map
        return Renderer(Path(tokenizer.name_or_path), template, tokens)
