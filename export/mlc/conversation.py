"""MLC's `conv_template`, derived from the checkpoint's own chat template and verified against it.

MLC has no template language: a conversation is prefixes and separators around messages. So the
checkpoint's Jinja template is rendered for probe conversations, what stands around the messages is
taken apart (`export.mlc.frames`), and what MLC would send is compared with the template's text.
Source of the fields: mlc_llm `protocol/conversation_protocol.py`; of the presets:
`conversation_template/registry.py`.

A template without a default system message, or with one that is always said, becomes one with a
bare slot at its end: MLC can then not mark a system message that a user adds, because its system
text is either always or never framed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgeproof.checkpoints.tokenizer import TOKENIZER, around
from edgeproof.templates import Message, Renderer
from edgeproof.templates.turn import turn_end_text
from export.checkpoint import Checkpoint
from export.checkpoint.chat_template import read_chat_template
from export.mlc.frames import Frames, Inexpressible, find_frames

SYSTEM_SLOT = "{system_message}"
CHATML_SYSTEM = "<|im_start|>system\n{system_message}<|im_end|>\n"
CHATML_END = "<|im_end|>"
# Spaces and line ends in the contents show a template that trims them, which MLC never does.
PROBES: tuple[tuple[Message, ...], ...] = (
    ({"role": "user", "content": "Hello"},),
    (
        {"role": "user", "content": " What is 2 + 2?\n"},
        {"role": "assistant", "content": "\nIt is 4. "},
        {"role": "user", "content": "Thank you!\n\nAnd 3 + 3?"},
    ),
)
# Characters of a difference that an error shows.
EXCERPT = 60
PROBE_SYSTEM = " Answer briefly.\nBe kind. "

log = logging.getLogger(__name__)


def conversation(checkpoint: Checkpoint, eos_ids: Sequence[int], added: Mapping[str, int]) -> Any:
    """The `conv_template` object: the chat template's, or plain completion for a base model.

    Args:
        checkpoint: the checkpoint whose template is read.
        eos_ids: tokens that end a generation.
        added: the tokenizer's added tokens, text → id.

    Raises:
        InputError: the template cannot be rendered, or is not prefixes and separators.
    """
    template = read_chat_template(checkpoint)
    if template is None:
        return _plain_completion(checkpoint, eos_ids)
    end = turn_end_text(template, added)
    further = [added[end]] if end is not None and end in added else []
    stop_ids = sorted({*eos_ids, *further})
    frames = CHATML if _is_chatml(template) else find_frames(template, added)
    return _framed(template, frames, [end] if end else [], stop_ids)


CHATML = Frames(
    name="chatml",
    system=CHATML_SYSTEM,
    roles={"user": "<|im_start|>user", "assistant": "<|im_start|>assistant"},
    seps=(CHATML_END + "\n",),
    content="\n",
    empty="\n",
)


def _is_chatml(template: Renderer) -> bool:
    """Whether a first message is asked and answered with ChatML's marks, whatever is before it."""
    bare = _preset(**CHATML.fields, system_message="")
    return template.render(PROBES[0]).endswith(prompt(bare, PROBES[0]))


def _framed(
    template: Renderer, frames: Frames, stop_str: list[str], stop_ids: list[int]
) -> dict[str, Any]:
    """The template's own default system message in its frame, or what is always said, bare."""
    fields = {**frames.fields, "stop_str": stop_str, "stop_token_ids": stop_ids}
    bare = _preset(**{**fields, "name": f"{frames.name}_nosystem"})
    before = template.render(PROBES[0]).removesuffix(prompt(bare, PROBES[0]))
    frame = re.escape(frames.system or "").replace(re.escape(SYSTEM_SLOT), "(.*)")
    system = re.fullmatch(frame, before, re.DOTALL) if frames.system else None
    checks = list(PROBES)
    if system is None:
        result = {**bare, "system_template": before + SYSTEM_SLOT}
    else:
        result = {
            **bare,
            "name": frames.name,
            "system_template": frames.system,
            "system_message": system.group(1),
        }
        own_system = {"role": "system", "content": PROBE_SYSTEM}
        checks += [(own_system, *probe) for probe in PROBES]
    trims = [_check_equal(template, result, messages) for messages in checks]
    if any(trims):
        log.warning(
            "%s: it removes spaces and line ends around messages, MLC sends them", template.source
        )
    return result


def _check_equal(template: Renderer, result: dict[str, Any], messages: tuple[Message, ...]) -> bool:
    """Whether the template only says the same as MLC without the spaces around messages."""
    theirs, ours = template.render(messages), prompt(result, messages)
    if theirs == ours:
        return False
    trimmed = [{**message, "content": message["content"].strip()} for message in messages]
    if theirs == prompt(result, trimmed):
        return True
    pairs = zip(theirs, ours, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(theirs), len(ours)))
    excerpt = slice(same, same + EXCERPT)
    raise Inexpressible(
        template.source, f"it renders {theirs[excerpt]!r} where MLC has {ours[excerpt]!r}"
    )


def prompt(template: Mapping[str, Any], messages: Sequence[Message]) -> str:
    """The text that MLC sends for a conversation and an empty reply, as `Conversation.as_prompt`.

    A leading system message replaces the template's own.
    """
    system, turns = template["system_message"], list(messages)
    if turns[0]["role"] == "system":
        system = turns.pop(0)["content"]
    separators = {"user": template["seps"][0], "assistant": template["seps"][-1]}
    parts = [template["system_template"].replace(SYSTEM_SLOT, system)]
    for message in turns:
        parts += [template["roles"][message["role"]], template["role_content_sep"]]
        parts += [message["content"], separators[message["role"]]]
    parts += [template["roles"]["assistant"], template["role_empty_sep"]]
    return "".join(parts)


def _plain_completion(checkpoint: Checkpoint, eos_ids: Sequence[int]) -> dict[str, Any]:
    before, _ = around(checkpoint.tokenizer, checkpoint.path / TOKENIZER)
    return _preset(
        name="LM",
        roles={"user": "", "assistant": ""},
        seps=[""],
        role_content_sep="",
        role_empty_sep="",
        stop_str=[],
        stop_token_ids=sorted(set(eos_ids)),
        system_prefix_token_ids=before or None,
    )


def _preset(**fields: Any) -> dict[str, Any]:
    """All fields of mlc_llm's `Conversation`, in its order, with its defaults."""
    defaults: dict[str, Any] = {
        "name": None,
        "system_template": SYSTEM_SLOT,
        "system_message": "",
        "system_prefix_token_ids": None,
        "add_role_after_system_message": True,
        "roles": {},
        "role_templates": {
            "user": "{user_message}",
            "assistant": "{assistant_message}",
            "tool": "{tool_message}",
        },
        "messages": [],
        "seps": [],
        "role_content_sep": "",
        "role_empty_sep": "",
        "stop_str": [],
        "stop_token_ids": [],
        "strip_reasoning_in_history": False,
        "function_string": "",
        "use_function_calling": False,
    }
    return {**defaults, **fields}
