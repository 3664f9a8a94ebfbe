"""MLC's `conv_template`, derived from the checkpoint's own chat template and verified against it.

MLC has no template language: a conversation is prefixes and separators around messages. So the
checkpoint's Jinja template is rendered for probe conversations, ChatML's fixed strings are matched,
and what MLC would send is compared with the template's text. Source of the fields: mlc_llm
`protocol/conversation_protocol.py`; of the presets: `conversation_template/registry.py`.

A ChatML template without a default system message becomes `chatml_nosystem`: MLC can then not mark
a system message that a user adds, because its system text is either always or never framed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgeproof.errors import InputError
from edgeproof.templates import Message, Renderer
from export.checkpoint import Checkpoint
from export.mlc.chat_template import read_chat_template

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


def conversation(checkpoint: Checkpoint, eos_ids: Sequence[int], added: Mapping[str, int]) -> Any:
    """The `conv_template` object: ChatML, or plain completion for a model without a template.

    Args:
        checkpoint: the checkpoint whose template is read.
        eos_ids: tokens that end a generation.
        added: the tokenizer's added tokens, text → id.

    Raises:
        InputError: the template cannot be rendered, or is not ChatML.
    """
    template = read_chat_template(checkpoint)
    if template is None:
        return _plain_completion(checkpoint, eos_ids)
    stop_ids = sorted({*eos_ids, *(added[t] for t in (CHATML_END,) if t in added)})
    return _chatml(template, stop_ids)


def _chatml(template: Renderer, stop_ids: list[int]) -> dict[str, Any]:
    """ChatML with the template's own default system message, or without one."""
    bare = _preset(
        name="chatml_nosystem",
        roles={"user": "<|im_start|>user", "assistant": "<|im_start|>assistant"},
        seps=[CHATML_END + "\n"],
        role_content_sep="\n",
        role_empty_sep="\n",
        stop_str=[CHATML_END],
        stop_token_ids=stop_ids,
    )
    before = template.render(PROBES[0]).removesuffix(prompt(bare, PROBES[0]))
    frame = re.escape(CHATML_SYSTEM).replace(re.escape(SYSTEM_SLOT), "(.*)")
    system = re.fullmatch(frame, before, re.DOTALL)
    if system is None:
        result = bare
        checks = list(PROBES)
    else:
        result = {
            **bare,
            "name": "chatml",
            "system_template": CHATML_SYSTEM,
            "system_message": system.group(1),
        }
        own_system = {"role": "system", "content": PROBE_SYSTEM}
        checks = [*PROBES, *((own_system, *probe) for probe in PROBES)]
    for messages in checks:
        _check_equal(template, result, messages)
    return result


def _check_equal(template: Renderer, result: dict[str, Any], messages: tuple[Message, ...]) -> None:
    theirs, ours = template.render(messages), prompt(result, messages)
    if theirs != ours:
        pairs = zip(theirs, ours, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(theirs), len(ours)))
        excerpt = slice(same, same + EXCERPT)
        raise InputError(
            f"{template.source}: MLC cannot express this chat template: it renders"
            f" {theirs[excerpt]!r} where ChatML has {ours[excerpt]!r};"
            " give the checkpoint a ChatML template, or none for plain completion"
        )


def prompt(template: Mapping[str, Any], messages: Sequence[Message]) -> str:
    """The text that MLC sends for a conversation and an empty reply, as `Conversation.as_prompt`.

    A leading system message replaces the template's own.
    """
    system, turns = template["system_message"], list(messages)
    if turns[0]["role"] == "system":
        system = turns.pop(0)["content"]
    parts = [template["system_template"].replace(SYSTEM_SLOT, system)]
    for message in turns:
        parts += [template["roles"][message["role"]], template["role_content_sep"]]
        parts += [message["content"], template["seps"][0]]
    parts += [template["roles"]["assistant"], template["role_empty_sep"]]
    return "".join(parts)


def _plain_completion(checkpoint: Checkpoint, eos_ids: Sequence[int]) -> dict[str, Any]:
    return _preset(
        name="LM",
        roles={"user": "", "assistant": ""},
        seps=[""],
        role_content_sep="",
        role_empty_sep="",
        stop_str=[],
        stop_token_ids=sorted(set(eos_ids)),
        system_prefix_token_ids=_automatic_prefix(checkpoint) or None,
    )


def _automatic_prefix(checkpoint: Checkpoint) -> list[int]:
    """Ids that the tokenizer puts before every text (usually BOS or nothing); MLC adds none."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_files["tokenizer.json"]))
    bare: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    full: list[int] = tokenizer.encode("a").ids
    return full[: full.index(bare[0])]


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
