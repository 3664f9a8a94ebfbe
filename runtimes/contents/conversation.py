"""What MLC's `conv_template` has to say: ChatML, or plain completion of a base model.

Fields: mlc_llm `protocol/conversation_protocol.py`. What decides how a conversation reads is not
compared field by field: chats are rendered by it and by the checkpoint's own template.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer

from runtimes.config_facts import end_tokens
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


def conversation(origin: Origin) -> dict[str, Any]:
    """By the chat template's presence."""
    ends = set(end_tokens(origin.folder)) or _listed(origin.generation_id("eos"))
    if origin.chat_template is None:
        return {
            **UNUSED,
            "name": NAME,
            "system_template": "{system_message}",
            "system_message": "",
            "system_prefix_token_ids": _prefix(origin) or None,
            "add_role_after_system_message": True,
            "roles": {"user": "", "assistant": ""},
            "role_templates": SLOTS,
            "seps": [""],
            "role_content_sep": "",
            "role_empty_sep": "",
            "stop_str": [],
            "stop_token_ids": sorted(ends),
        }
    return {
        **UNUSED,
        "name": NAME,
        "system_template": RENDERED,
        "system_message": RENDERED,
        "system_prefix_token_ids": None,
        "add_role_after_system_message": RENDERED,
        "roles": dict.fromkeys(("user", "assistant"), RENDERED),
        "role_templates": {**dict.fromkeys(("user", "assistant"), RENDERED), "tool": SLOTS["tool"]},
        "seps": RENDERED,
        "role_content_sep": RENDERED,
        "role_empty_sep": RENDERED,
        "stop_str": [CHATML_END],
        "stop_token_ids": sorted(
            ends | {origin.added[text] for text in (CHATML_END,) if text in origin.added}
        ),
    }


def _listed(value: Any) -> set[int]:
    return set(value) if isinstance(value, list) else {value}


def _prefix(origin: Origin) -> list[int]:
    """Ids that the tokenizer puts before every text; MLC puts none there by itself."""
    tokenizer = Tokenizer.from_file(str(origin.folder / "tokenizer.json"))
    bare: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    full: list[int] = tokenizer.encode("a").ids
    return full[: full.index(bare[0])]
