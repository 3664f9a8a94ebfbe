"""Reading MLC's folders as WebLLM and MLC-LLM do. Keys: MLC's `mlc-chat-config.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import DamagedExportError
from runtimes.adapter import Adapter
from runtimes.chat_templates import Message, Render
from runtimes.config_facts import SAME_NAME, Facts, Statement
from runtimes.contents import Content, Origin
from runtimes.formats.reader import Deployment, Engine, Reader, Requirement, Stops

CONFIG, STOP = "mlc-chat-config.json", "stop_token_ids"
TEMPLATE_FIELDS = {
    "system_template", "system_message", "roles", "seps", "role_content_sep", "role_empty_sep",
}  # fmt: skip
SYSTEM_SLOT = "{system_message}"
# Key of `model_config` → fact.
FACTS = {
    **{name: name for name in SAME_NAME},
    "position_embedding_base": "rope_theta",
    "rope_theta": "rope_theta",
    "context_window_size": "context",
}


def conversation_prompt(template: Mapping[str, Any], messages: Sequence[Message]) -> str | None:
    """The text of a conversation by MLC's rules, up to where the reply begins.

    None where the user has a system message and the template has no frame for one: MLC would put
    it there bare. Rules: mlc_llm `protocol/conversation_protocol.py`, `as_prompt`.
    """
    system = [message["content"] for message in messages if message["role"] == "system"]
    bare = template["system_template"].endswith(SYSTEM_SLOT) and not template["system_message"]
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


def _weights(artifact: Artifact) -> Mapping[str, np.ndarray]:
    from runtimes.weights.mlc import read

    return read(artifact)


def _states(artifact: Artifact, ids: Sequence[int], threads: int) -> dict[str, np.ndarray]:
    from runtimes.states.mlc import trace

    return trace(artifact, ids, threads)


def _chat_template(artifact: Artifact) -> Render | None:
    path = artifact.path / CONFIG
    template: dict[str, Any] = read_json(path).get("conv_template", {})
    missing = TEMPLATE_FIELDS - template.keys()
    if missing:
        raise DamagedExportError(f"{path}: conv_template lacks {sorted(missing)}")
    if not any(template["roles"].values()):
        return None  # plain completion
    return lambda messages: conversation_prompt(template, messages)


def _stops(artifact: Artifact) -> Stops:
    """WebLLM stops at these only; chat templates may add their own."""
    template = read_json(artifact.path / CONFIG).get("conv_template", {})
    stated = frozenset(template.get(STOP, ()))
    return Stops(STOP, stated, lambda expected: stated >= expected)


def _statements(artifact: Artifact, _: Facts) -> Iterator[Statement]:
    model = read_json(artifact.path / CONFIG).get("model_config", {})
    for key, fact in FACTS.items():
        if key in model:
            yield f"model_config.{key}", model[key], fact


def _contents(artifact: Artifact, origin: Origin) -> Iterable[Content]:
    from runtimes.contents.mlc import contents

    return contents(artifact, origin)


READER = Reader(
    adapter=Adapter(  # a decoder of our own, compiled by TVM; users run WebLLM and MLC-LLM
        "runtimes.tvm",
        ("tvm",),
        "tvm",
        device="cpu",
        activations="float32",
        real=False,
        in_process=True,
        code="tvm",
    ),
    others={},
    weights=_weights,
    states=_states,
    twins=lambda artifact: (),
    chat_template=_chat_template,
    stops=_stops,
    statements=_statements,
    contents=_contents,
    deployments=(Deployment("WebLLM", activations=None, device="gpu"),),
    marker="^",
    engine=Engine(
        modules=("engine-webllm.js",),
        brought=(),
        scripts=("web-llm.js",),
        reads=(
            CONFIG,
            "tensor-cache.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "webllm-model.json",
            "*.bin",
            "*.wasm",
        ),
        requirement=Requirement(
            "*.wasm", "WebLLM needs a model library; export again with --model-lib FILE"
        ),
    ),
)
