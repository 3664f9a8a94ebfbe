"""What MLC's `conv_template` has to say: of a chat template, or plain completion of a base model.

Fields: mlc_llm `protocol/conversation_protocol.py`. What decides how a conversation reads is not
compared field by field: chats are rendered by it and by the checkpoint's own template.
"""

from __future__ import annotations

from typing import Any

from edgeproof.checkpoints.settings import special_texts
from edgeproof.checkpoints.special_tokens import listed
from edgeproof.templates import Renderer
from edgeproof.templates.turn import turn_end_text
from runtimes.contents.expectation import Exercised
from runtimes.contents.free import free
from runtimes.contents.origin import Origin

RENDERED = Exercised("chats are rendered and compared with the checkpoint's template")
NAME = free("mlc-chat-config.json conv_template.name")
CHATML_END = "<|im_end|>"
SLOTS = {role: f"{{{role}_message}}" for role in ("user", "assistant", "tool")}
# What no template of ours has: tools, earlier messages, a reasoning to cut off.
UNUSED = {
    "messages": [],
    "strip_reasoning_in_history": False,
    "function_string": "",
    "use_function_calling": False,
}


def conversation(origin: Origin, separators: int) -> dict[str, Any]:
    """By the chat template's presence.

    There are so many separators: one, or one after questions and one after answers.
    """
    ends, template = set(listed(origin.generation_id("eos"))), origin.chat_templates.get("default")
    if template is None:
        return {
            **UNUSED,
            "name": NAME,
            "system_template": "{system_message}",
            "system_message": "",
            "system_prefix_token_ids": origin.around[0] or None,
            "add_role_after_system_message": True,
            "roles": {"user": "", "assistant": ""},
            "role_templates": SLOTS,
            "seps": [""],
            "role_content_sep": "",
            "role_empty_sep": "",
            "stop_str": [],
            "stop_token_ids": sorted(ends),
        }
    end = CHATML_END if CHATML_END in template else _turn_end(origin, template)
    return {
        **UNUSED,
        "name": NAME,
        "system_template": RENDERED,
        "system_message": RENDERED,
        "system_prefix_token_ids": None,
        "add_role_after_system_message": RENDERED,
        "roles": dict.fromkeys(("user", "assistant"), RENDERED),
        "role_templates": {**dict.fromkeys(("user", "assistant"), RENDERED), "tool": SLOTS["tool"]},
        # Runtimes differ in what they make of more.
        "seps": [RENDERED] * min(max(separators, 1), 2),
        "role_content_sep": RENDERED,
        "role_empty_sep": RENDERED,
        "stop_str": [end] if end else [],
        "stop_token_ids": sorted(
            ends | {index for text, index in origin.added.items() if text == end}
        ),
    }


def _turn_end(origin: Origin, template: str) -> str | None:
    special = special_texts(origin.settings)
    return turn_end_text(Renderer(origin.folder, template, special), origin.added)
