"""A checkpoint's own Jinja chat template, ready to be rendered, and what ends its turns.

transformers' `strftime_now` is left out: a prompt that depends on the clock has no place in an
artifact.
"""

from __future__ import annotations

from collections.abc import Collection

from edgeproof.checkpoints.chat_template import DEFAULT, chat_templates, template_source
from edgeproof.checkpoints.settings import special_texts
from edgeproof.checkpoints.tokenizer import ADDED
from edgeproof.templates import Renderer
from edgeproof.templates.turn import turn_end_text
from export.checkpoint.folder import CheckpointFolder


def read_chat_template(checkpoint: CheckpointFolder) -> Renderer | None:
    """The checkpoint's default chat template; None for a model that has none.

    Raises:
        InputError: it is not text.
    """
    text = chat_templates(checkpoint.path, checkpoint.settings).get(DEFAULT)
    if text is None:
        return None
    source = template_source(checkpoint.path)
    return Renderer(source, text, special_texts(checkpoint.settings), clock=False)


def further_end(checkpoint: CheckpointFolder, known: Collection[int]) -> int | None:
    """The token after an assistant's message, where it is none of the `known` ones.

    The template is run only where it may be such a token.

    Raises:
        InputError: the template is not text.
    """
    text = chat_templates(checkpoint.path, checkpoint.settings).get(DEFAULT, "")
    others = {
        item["content"]
        for item in checkpoint.tokenizer.get(ADDED) or ()
        if item["special"] and item["id"] not in known and item["content"] in text
    }
    template = read_chat_template(checkpoint) if others else None
    end = turn_end_text(template, others) if template else None
    return checkpoint.added.get(end) if end else None
