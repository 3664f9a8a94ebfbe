"""mlc-chat-config.json: what it states, and that its prompts are the checkpoint's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from edgeproof.errors import InputError
from export.checkpoint import Checkpoint, open_checkpoint
from export.checkpoint.chat_template import read_chat_template
from export.mlc.chat_config import chat_config
from export.mlc.conversation import prompt
from export.mlc.tokenizer_facts import tokenizer_info
from tests.tiny import CHAT_TEMPLATE, SPECIAL, VOCAB, make_checkpoint

WITHOUT_SYSTEM = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHAT = (
    {"role": "user", "content": "  Who are you? {system_message}"},
    {"role": "assistant", "content": "A test.\n"},
    {"role": "user", "content": "Ok <|im_end|>"},
)


def rewrite(folder: Path, file: str, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    path = folder / file
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def opened(folder: Path, **settings: Any) -> Checkpoint:
    rewrite(make_checkpoint(folder), "tokenizer_config.json", **settings)
    return open_checkpoint(folder)


def own_prompt(checkpoint: Checkpoint, messages: Sequence[dict[str, str]]) -> str:
    template = read_chat_template(checkpoint)
    assert template is not None
    return template.render(messages)


def test_the_default_system_message_is_the_checkpoints_own(checkpoint_folder: Path) -> None:
    checkpoint = open_checkpoint(checkpoint_folder)
    template = chat_config(checkpoint, "q0f16")["conv_template"]
    assert template["system_message"] == "You are a tiny test model"
    assert template["system_template"] == "<|im_start|>system\n{system_message}<|im_end|>\n"
    assert template["stop_str"] == ["<|im_end|>"]
    assert template["stop_token_ids"] == [2]
    assert prompt(template, CHAT) == own_prompt(checkpoint, CHAT)
    with_system = ({"role": "system", "content": "Be brief."}, *CHAT)
    assert prompt(template, with_system) == own_prompt(checkpoint, with_system)


def test_prompts_are_those_of_transformers(checkpoint_folder: Path) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    checkpoint = open_checkpoint(checkpoint_folder)
    template = chat_config(checkpoint, "q0f16")["conv_template"]
    rendered, _ = utils.render_jinja_template(
        [list(CHAT)], chat_template=CHAT_TEMPLATE, add_generation_prompt=True
    )
    assert prompt(template, CHAT) == rendered[0]


def test_a_template_without_default_system_message_gets_none(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path / "c", chat_template=WITHOUT_SYSTEM)
    template = chat_config(checkpoint, "q0f16")["conv_template"]
    assert (template["name"], template["system_message"]) == ("chatml_nosystem", "")
    assert prompt(template, CHAT) == own_prompt(checkpoint, CHAT)


def test_the_default_of_several_templates_and_the_jinja_file_are_read(tmp_path: Path) -> None:
    several = [
        {"name": "tool_use", "template": "{{ nothing }}"},
        {"name": "default", "template": WITHOUT_SYSTEM},
    ]
    checkpoint = opened(tmp_path / "c", chat_template=several)
    assert chat_config(checkpoint, "q0f16")["conv_template"]["name"] == "chatml_nosystem"
    (tmp_path / "c" / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    checkpoint = open_checkpoint(tmp_path / "c")
    assert chat_config(checkpoint, "q0f16")["conv_template"]["name"] == "chatml"


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages | length > 2 %}{{ 'long' }}{% endif %}" + WITHOUT_SYSTEM,
        WITHOUT_SYSTEM.replace("message['content']", "message['content'] | upper"),
        WITHOUT_SYSTEM.replace("message['content']", "message['content'] * 2"),
        "{{ 'text' }}",
    ],
    ids=["differs later", "shouts", "says all twice", "constant"],
)
def test_a_template_that_mlc_cannot_express_is_refused(tmp_path: Path, template: str) -> None:
    checkpoint = opened(tmp_path / "c", chat_template=template)
    with pytest.raises(InputError, match=r"tokenizer_config\.json: MLC cannot express") as caught:
        chat_config(checkpoint, "q0f16")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ strftime_now('%Y') }}",
        "{{ 1 + 'a' }}",
    ],
)
def test_a_template_that_fails_or_reaches_outside_is_refused(tmp_path: Path, template: str) -> None:
    checkpoint = opened(tmp_path / "c", chat_template=template)
    with pytest.raises(InputError, match=r"chat template cannot be rendered|MLC cannot express"):
        chat_config(checkpoint, "q0f16")


def test_a_base_model_gets_plain_completion(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path / "c", chat_template=None)
    template = chat_config(checkpoint, "q0f16")["conv_template"]
    assert template["name"] == "LM"
    assert prompt(template, CHAT[:1]) == CHAT[0]["content"]
    assert template["stop_token_ids"] == [2]
    assert template["system_prefix_token_ids"] is None


def test_a_base_model_whose_tokenizer_adds_bos_gets_it_as_prefix(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    rewrite(folder, "tokenizer_config.json", chat_template=None)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[1]} $A", special_tokens=[(SPECIAL[1], 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    template = chat_config(open_checkpoint(folder), "q0f16")["conv_template"]
    assert template["system_prefix_token_ids"] == [1]


def test_the_config_is_complete_and_the_rotary_base_explicit(tmp_path: Path) -> None:
    folder = make_checkpoint(
        tmp_path / "c",
        rope_theta=None,
        rope_parameters={"rope_type": "default", "rope_theta": 130000.0},
        max_position_embeddings=10_000,
    )
    config = chat_config(open_checkpoint(folder), "q4f16_1")
    assert config["model_config"] == {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "tie_word_embeddings": True,
        "position_embedding_base": 130000,
        "rope_scaling": None,
        "context_window_size": 10_000,
        "prefill_chunk_size": 8192,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "max_batch_size": 128,
        "disaggregation": False,
    }
    assert config["quantization"] == "q4f16_1"
    assert config["tokenizer_files"] == ["tokenizer.json", "tokenizer_config.json"]
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    assert config["active_vocab_size"] == tokens
    assert (config["temperature"], config["top_p"]) == (0.2, 0.9)
    assert (config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]) == (2, 1, 2)


def test_generation_config_overrides_sampling_and_adds_stop_tokens(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    rewrite(folder, "generation_config.json", temperature=0.6, top_p=0.95, eos_token_id=[2, 0])
    config = chat_config(open_checkpoint(folder), "q0f16")
    assert (config["temperature"], config["top_p"]) == (0.6, 0.95)
    assert config["eos_token_id"] == [2, 0]
    assert config["conv_template"]["stop_token_ids"] == [0, 2]


def test_a_model_without_end_token_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", eos_token_id=None)
    rewrite(folder, "generation_config.json", eos_token_id=None)
    config = chat_config(open_checkpoint(folder), "q0f16")
    assert config["eos_token_id"] == 2  # the tokenizer's eos_token
    rewrite(folder, "tokenizer_config.json", eos_token=None)
    with pytest.raises(InputError, match=r"set eos_token_id in generation_config\.json"):
        chat_config(open_checkpoint(folder), "q0f16")


def test_a_foreign_tokenizer_file_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    (folder / "tokenizer.json").write_text('{"model": {"vocab": 3}, "added_tokens": []}')
    with pytest.raises(InputError, match=r"tokenizer\.json: cannot be opened"):
        chat_config(open_checkpoint(folder), "q0f16")


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        ({"decoder": {"type": "ByteLevel"}}, ("byte_level", False, False)),
        ({"decoder": None, "normalizer": None}, ("byte_fallback", False, False)),
        (
            {
                "normalizer": {
                    "type": "Sequence",
                    "normalizers": [{"type": "Prepend", "prepend": "▁"}],
                },
                "decoder": {
                    "type": "Sequence",
                    "decoders": [
                        {"type": "ByteFallback"},
                        {"type": "Fuse"},
                        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                    ],
                },
            },
            ("byte_fallback", True, True),
        ),
    ],
    ids=["SmolLM", "none", "SentencePiece"],
)
def test_tokenizer_info_is_what_mlc_detects(
    tokenizer: dict[str, Any], expected: tuple[str, bool, bool]
) -> None:
    assert tuple(tokenizer_info(tokenizer).values()) == expected
