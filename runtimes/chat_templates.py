"""The chat template inside an artifact, rendered as its runtimes do, without exporters' code.

Jinja templates: transformers `utils/chat_template_utils.py`, whose settings llama.cpp and
transformers.js share. MLC's rules: mlc_llm `protocol/conversation_protocol.py`, `as_prompt`.
Templates are programs of strangers: they run in Jinja's sandbox.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import InputError
from runtimes.gguf_file import read_metadata

Message = Mapping[str, str]
# Messages → the prompt for the next reply; None where the format has no way to say them.
Render = Callable[[Sequence[Message]], str | None]

GGUF_TEMPLATE = "tokenizer.chat_template"
SETTINGS, TEMPLATE_FILE = "tokenizer_config.json", "chat_template.jinja"
MLC_CONFIG = "mlc-chat-config.json"
MLC_FIELDS = {
    "system_template", "system_message", "roles", "seps", "role_content_sep", "role_empty_sep",
}  # fmt: skip
SYSTEM_SLOT = "{system_message}"


def read_chat_template(artifact: Artifact) -> Render | None:
    """The artifact's own chat template; None where it has none (base models).

    Raises:
        InputError: a file is unreadable, or the template is not valid.
    """
    return READERS[artifact.manifest.variant.format](artifact)


def _gguf(artifact: Artifact) -> Render | None:
    path = artifact.files(".gguf")[0]
    stated = read_metadata(path)
    if GGUF_TEMPLATE not in stated:
        return None
    tokens, special = stated["tokenizer.ggml.tokens"], {}
    for name in ("bos", "eos"):
        token = stated.get(f"tokenizer.ggml.{name}_token_id")
        if token is not None:
            special[f"{name}_token"] = tokens[token]
    return _jinja(path, stated[GGUF_TEMPLATE], special)


def _onnx(artifact: Artifact) -> Render | None:
    settings = read_json(artifact.path / SETTINGS)
    special = {
        key: value["content"] if isinstance(value, dict) else value
        for key, value in settings.items()
        if key.endswith("_token") and isinstance(value, str | dict)
    }
    file = artifact.path / TEMPLATE_FILE
    if file.exists():
        return _jinja(file, file.read_text("utf-8"), special)
    text = settings.get("chat_template")
    if isinstance(text, list):
        text = {item["name"]: item["template"] for item in text}.get("default")
    return None if text is None else _jinja(artifact.path / SETTINGS, text, special)


def _mlc(artifact: Artifact) -> Render | None:
    path = artifact.path / MLC_CONFIG
    template: dict[str, Any] = read_json(path).get("conv_template", {})
    missing = MLC_FIELDS - template.keys()
    if missing:
        raise InputError(f"{path}: conv_template lacks {sorted(missing)}; export the model again")
    if not any(template["roles"].values()):
        return None  # plain completion
    return lambda messages: conversation_prompt(template, messages)


def conversation_prompt(template: Mapping[str, Any], messages: Sequence[Message]) -> str | None:
    """The text of a conversation by MLC's rules, up to where the reply begins.

    None where the user has a system message and the template has no frame for one: MLC would put
    it there bare.
    """
    system = [message["content"] for message in messages if message["role"] == "system"]
    bare = template["system_template"] == SYSTEM_SLOT and not template["system_message"]
    if system and bare:
        return None
    text = system[-1] if system else template["system_message"]
    head = template["system_template"].replace(SYSTEM_SLOT, text)
    separators = {"user": template["seps"][0], "assistant": template["seps"][-1]}
    parts = [head]
    turns = [message for message in messages if message["role"] != "system"]
    for index, message in enumerate(turns):
        role = message["role"]
        if index or not head or template.get("add_role_after_system_message", True):
            parts.append(template["roles"][role] + template["role_content_sep"])
        slot = "{" + role + "_message}"
        frame = template.get("role_templates", {}).get(role, slot)
        parts.append(frame.replace(slot, message["content"]) + separators[role])
    return "".join((*parts, template["roles"]["assistant"], template["role_empty_sep"]))


READERS: dict[str, Callable[[Artifact], Render | None]] = {
    "gguf": _gguf,
    "onnx": _onnx,
    "mlc": _mlc,
}


def _jinja(source: Path, text: str, special: Mapping[str, str]) -> Render:
    """Compile a template; `special` are the tokenizer's tokens by name, such as bos_token."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    errors = (TemplateError, TypeError, ValueError)

    def render(messages: Sequence[Message]) -> str:
        try:
            return environment.from_string(text).render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **special,
            )
        except errors as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{source}: its chat template cannot be rendered: {reason}") from None

    return render


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def _raise_exception(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
