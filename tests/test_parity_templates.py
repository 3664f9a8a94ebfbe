"""Chat templates: exports render the checkpoint's prompts, and a planted difference is a FAIL."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.errors import InputError
from runtimes.formats import reader_of
from runtimes.formats.mlc import conversation_prompt
from runtimes.parity.suite import Budget, Prompt, built_in
from runtimes.parity.templates import TemplateResult, compare_templates
from runtimes.pytorch import TorchRuntime
from runtimes.registry import open_reference
from tests.exported import export_tiny
from tests.tiny import CHAT_TEMPLATE, make_checkpoint

FORMATS = [("onnx", "fp32"), ("gguf", "f32"), ("mlc", "q0f16")]
CHATS = built_in(Budget.DEFAULT).prompts
HELLO = Prompt("hello", "chat", None, ({"role": "user", "content": "Hello"},))


def bare(template: str) -> str:
    """A template without the default system message."""
    return "{% for message in messages %}" + template[template.index("{{'<|im_start|>'") :]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("templates") / "tiny")


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Iterator[TorchRuntime]:
    runtime = open_reference(checkpoint, 1)
    yield runtime
    runtime.close()


def compared(artifact: Artifact, reference: TorchRuntime) -> TemplateResult:
    expected = reference.render_chat if reference.has_chat_template else None
    return compare_templates(reader_of(artifact).chat_template(artifact), expected, CHATS)


def change_settings(folder: Path, **values: Any) -> None:
    path = folder / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))


@pytest.mark.parametrize(("form", "variant"), FORMATS)
def test_exports_render_every_chat_as_the_checkpoint(
    checkpoint: Path, reference: TorchRuntime, tmp_path: Path, form: str, variant: str
) -> None:
    result = compared(export_tiny(checkpoint, form, variant, tmp_path), reference)
    assert result.chats > 20
    assert (result.different, result.inexpressible, result.fault) == (0, 0, None)


@pytest.mark.parametrize(("form", "variant"), FORMATS)
def test_a_template_with_one_more_space_is_a_fault_that_names_the_place(
    reference: TorchRuntime, tmp_path: Path, form: str, variant: str
) -> None:
    wrong = make_checkpoint(tmp_path / "wrong")
    change_settings(wrong, chat_template=CHAT_TEMPLATE.replace("tiny test", "tiny  test"))
    result = compared(export_tiny(wrong, form, variant, tmp_path), reference)
    first = next(chat for chat in CHATS if chat.messages)
    place = len("<|im_start|>system\nYou are a tiny ")
    assert result.fault is not None
    assert f"first {first.id} at character {place}: ' test" in result.fault


@pytest.mark.parametrize(("form", "variant"), FORMATS)
def test_a_template_that_is_not_there_is_a_fault(
    reference: TorchRuntime, tmp_path: Path, form: str, variant: str
) -> None:
    base = make_checkpoint(tmp_path / "base")
    change_settings(base, chat_template=None)
    artifact = export_tiny(base, form, variant, tmp_path)
    fault = compared(artifact, reference).fault
    assert fault == "chat template: the checkpoint has one, the artifact has none"
    assert compared(artifact, open_reference(base, 1)).fault is None


def test_a_template_that_only_the_artifact_has_is_a_fault(checkpoint: Path, tmp_path: Path) -> None:
    artifact = export_tiny(checkpoint, "gguf", "f32", tmp_path)
    result = compare_templates(reader_of(artifact).chat_template(artifact), None, CHATS)
    assert result.fault == "chat template: the artifact has one, the checkpoint has none"


@pytest.mark.parametrize(("form", "variant"), FORMATS)
def test_tokens_of_the_tokenizer_are_known_to_templates(
    tmp_path: Path, form: str, variant: str
) -> None:
    model = make_checkpoint(tmp_path / "bos")
    change_settings(
        model, chat_template=CHAT_TEMPLATE.replace("'<|im_end|>' + '\\n'", "eos_token + '\\n'")
    )
    result = compared(export_tiny(model, form, variant, tmp_path), open_reference(model, 1))
    assert (result.different, result.fault) == (0, None)


def test_mlc_without_a_place_for_system_messages_is_a_note(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "bare")
    change_settings(model, chat_template=bare(CHAT_TEMPLATE))
    result = compared(export_tiny(model, "mlc", "q0f16", tmp_path), open_reference(model, 1))
    with_system = [c for c in CHATS if any(m["role"] == "system" for m in c.messages)]
    assert result.fault is None
    assert result.inexpressible == len(with_system) > 0
    assert "system message" in result.notes[0]


@pytest.mark.parametrize("text", ["{% for %}", "{{ raise_exception('no') }}", "{{ 1 + 'a' }}"])
def test_a_template_that_fails_is_refused(checkpoint: Path, tmp_path: Path, text: str) -> None:
    exported = export_tiny(checkpoint, "onnx", "fp32", tmp_path)
    copy = Path(shutil.copytree(exported.path, tmp_path / "copy"))
    change_settings(copy, chat_template=text)
    artifact = open_artifact(copy)
    render = reader_of(artifact).chat_template(artifact)
    assert render is not None
    with pytest.raises(InputError, match="chat template cannot be rendered"):
        render(HELLO.messages)


def test_a_template_cannot_reach_out_of_its_sandbox(checkpoint: Path, tmp_path: Path) -> None:
    exported = export_tiny(checkpoint, "onnx", "fp32", tmp_path)
    copy = Path(shutil.copytree(exported.path, tmp_path / "copy"))
    change_settings(copy, chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}")
    artifact = open_artifact(copy)
    render = reader_of(artifact).chat_template(artifact)
    assert render is not None
    with pytest.raises(InputError, match="unsafe"):
        render(HELLO.messages)


def test_mlc_rules_of_llama2_style_templates() -> None:
    """Two separators, and no role after the system message; as in mlc_llm's `llama-2` preset."""
    template = {
        "system_template": "[INST] <<SYS>>\n{system_message}\n<</SYS>>\n\n",
        "system_message": "Be kind.",
        "add_role_after_system_message": False,
        "roles": {"user": "<s>[INST]", "assistant": "[/INST]"},
        "role_templates": {"user": "{user_message}", "assistant": "{assistant_message}"},
        "seps": [" ", " </s>"],
        "role_content_sep": " ",
        "role_empty_sep": " ",
    }
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    assert conversation_prompt(template, messages) == (
        "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Bye [/INST] "
    )


def test_a_text_of_single_questions_hides_no_mistake_in_other_turns(
    checkpoint: Path, reference: TorchRuntime, tmp_path: Path
) -> None:
    artifact = export_tiny(checkpoint, "mlc", "q0f16", tmp_path)
    path = artifact.path / "mlc-chat-config.json"
    config = json.loads(path.read_text())
    config["conv_template"]["role_templates"]["assistant"] = "{assistant_message}!"
    path.write_text(json.dumps(config))
    render = reader_of(artifact).chat_template(artifact)
    result = compare_templates(render, reference.render_chat, [HELLO])
    assert result.chats == 1
    assert result.fault is not None
    assert "2 of 5 prompts differ, first a second question at character " in result.fault
