"""Checkpoints that people really have: what ends a reply, added tokens, chat templates, names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tokenizers import processors

from edgeproof.artifact import ModelIdentity
from edgeproof.errors import InputError
from edgeproof.templates import RefusalError, Renderer
from export.__main__ import main as export_main
from export.checkpoint import Checkpoint, open_checkpoint
from export.gguf.metadata import metadata_entries
from export.gguf.special_tokens import ENDS_BY_TEXT
from export.mlc.chat_config import chat_config
from runtimes.contents.origin import Origin
from runtimes.formats import reader_of
from runtimes.formats.mlc import conversation_prompt
from runtimes.llamacpp import LlamaCpp
from runtimes.parity.answerable import answerable
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.parity.suite import Prompt, Suite
from runtimes.pytorch.loading import load_tokenizer
from runtimes.said import said_of
from tests.exported import export_tiny
from tests.tiny import CHAT_TEMPLATE, SPECIAL, VOCAB, change_json, make_checkpoint

CONFIG, GENERATION = "config.json", "generation_config.json"
SETTINGS, TOKENIZER = "tokenizer_config.json", "tokenizer.json"
END = "<|im_end|>"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads(path.read_text("utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), "utf-8")


def without(folder: Path, file: str, *keys: str) -> None:
    edit(folder / file, lambda raw: [raw.pop(key, None) for key in keys])


def said_nowhere(folder: Path) -> None:
    without(folder, CONFIG, "bos_token_id", "eos_token_id", "pad_token_id")
    without(folder, SETTINGS, "bos_token", "eos_token", "pad_token", "chat_template")
    (folder / GENERATION).unlink()


def list_in_config(folder: Path) -> None:
    change_json(folder / CONFIG, eos_token_id=[2, 0])
    without(folder, SETTINGS, "eos_token", "pad_token")
    (folder / GENERATION).unlink()


def of_the_base(folder: Path) -> None:
    change_json(folder / GENERATION, eos_token_id=0)


def tokenizer_alone(folder: Path) -> None:
    without(folder, CONFIG, "eos_token_id")
    without(folder, GENERATION, "eos_token_id")


def plain_words(folder: Path) -> None:
    """Ends that llama.cpp knows by no text."""
    change_json(folder / GENERATION, eos_token_id=[2, 50, 51])


# What is done → the tokens that end a reply, the key of GGUF's EOS, what llama.cpp stops at.
STOPS: dict[str, tuple[Callable[[Path], object], set[int], int, set[int]]] = {
    "healthy": (lambda folder: None, {2}, 2, {0, 2}),
    "nowhere": (said_nowhere, {2}, 2, {0, 2}),
    "list in config.json": (list_in_config, {0, 2}, 2, {0, 2}),
    "of the base": (of_the_base, {0}, 2, {0, 2}),
    "tokenizer alone": (tokenizer_alone, {2}, 2, {0, 2}),
    "words": (plain_words, {2, 50, 51}, 2, {0, 2, 50, 51}),
}


@pytest.mark.parametrize("quirk", STOPS)
def test_what_ends_a_reply_is_one_rule(
    checkpoint_folder: Path, tmp_path: Path, quirk: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, ends, key, own = STOPS[quirk]
    change(checkpoint_folder)
    assert set(open_checkpoint(checkpoint_folder).said.stops(VOCAB)) == ends
    assert set(said_of(checkpoint_folder).stops(VOCAB)) == ends
    artifact = export_tiny(checkpoint_folder, "gguf", "f32", tmp_path)
    assert entries(checkpoint_folder)["tokenizer.ggml.eos_token_id"] == key
    stops = reader_of(artifact).stops(artifact)
    assert stops.tokens == own
    assert stops.enough(frozenset(ends))
    assert not compare_metadata(artifact, checkpoint_folder)
    assert ("transformers stops at the first" in caplog.text) == (quirk == "of the base")


def test_llama_cpp_stops_at_these_texts_by_itself(checkpoint_folder: Path, tmp_path: Path) -> None:
    """Those that it would not find are written as its EOT and EOM."""

    def add(raw: dict[str, Any]) -> None:
        size = len(raw["model"]["vocab"])
        for offset, text in enumerate(sorted(ENDS_BY_TEXT - set(SPECIAL))):
            raw["added_tokens"].append(
                {**raw["added_tokens"][0], "content": text, "id": size + offset}
            )

    edit(checkpoint_folder / TOKENIZER, add)
    artifact = export_tiny(checkpoint_folder, "gguf", "f32", tmp_path)
    added = open_checkpoint(checkpoint_folder).added
    assert reader_of(artifact).stops(artifact).tokens >= {added[text] for text in ENDS_BY_TEXT}


def test_without_any_end_gguf_is_refused(checkpoint_folder: Path) -> None:
    """llama.cpp would take token 11, a letter, for it."""
    said_nowhere(checkpoint_folder)
    change_json(checkpoint_folder / CONFIG, eos_token_id=None)
    with pytest.raises(InputError, match=r"llama\.cpp would stop at token 11"):
        entries(checkpoint_folder)


@pytest.mark.parametrize("value", ["2", [2, None], {"id": 2}, True, 2.5])
def test_an_end_that_is_no_token_is_refused(checkpoint_folder: Path, value: Any) -> None:
    change_json(checkpoint_folder / GENERATION, eos_token_id=value)
    file = re.escape(str(checkpoint_folder / GENERATION))
    with pytest.raises(InputError, match=rf"^{file}: eos_token_id must be a token"):
        open_checkpoint(checkpoint_folder).said.stops(VOCAB)


def entries(folder: Path, checkpoint: Checkpoint | None = None, name: str = "m") -> dict[str, Any]:
    identity = ModelIdentity(name, None, None, 1_000_000, ())
    found = metadata_entries(checkpoint or open_checkpoint(folder), identity, 0)
    return {entry.key: entry.value for entry in found}


def add_eos_in_settings(folder: Path) -> None:
    change_json(folder / SETTINGS, tokenizer_class="GPT2Tokenizer", add_eos_token=True)


def template_of(single: str) -> Callable[[Path], None]:
    tokens = [(text, SPECIAL.index(text)) for text in SPECIAL]
    made = processors.TemplateProcessing(single=single, special_tokens=tokens)
    state = json.loads(made.__getstate__())
    return lambda folder: edit(folder / TOKENIZER, lambda raw: raw.update(post_processor=state))


AROUND: dict[str, tuple[Callable[[Path], object], bool, bool]] = {
    "settings alone": (add_eos_in_settings, False, False),
    "begins": (template_of("<|im_start|> $A"), True, False),
    "ends": (template_of("$A <|im_end|>"), False, True),
    "both": (template_of("<|im_start|> $A <|im_end|>"), True, True),
}


@pytest.mark.parametrize("quirk", AROUND)
def test_what_is_put_around_a_text_is_the_post_processors_word(
    checkpoint_folder: Path, tmp_path: Path, quirk: str
) -> None:
    change, begins, ends = AROUND[quirk]
    change(checkpoint_folder)
    artifact = export_tiny(checkpoint_folder, "gguf", "f32", tmp_path)
    runtime = LlamaCpp(artifact.file(".gguf"), 1)
    whole = runtime.tokenize_whole("a")
    runtime.close()
    assert whole == load_tokenizer(checkpoint_folder).encode("a")
    assert (whole[0] == 1, whole[-1] == 2) == (begins, ends)
    assert not compare_metadata(artifact, checkpoint_folder)


def test_a_token_that_llama_cpp_cannot_add_is_refused(checkpoint_folder: Path) -> None:
    template_of("<|endoftext|> $A")(checkpoint_folder)
    with pytest.raises(InputError, match="can only add its BOS"):
        entries(checkpoint_folder)


def added_with_a_gap(folder: Path) -> None:
    def add(raw: dict[str, Any]) -> None:
        raw["added_tokens"].append(
            {**raw["added_tokens"][0], "content": "<|tool|>", "id": VOCAB - 4}
        )

    edit(folder / TOKENIZER, add)


def added_in_settings(folder: Path) -> None:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    token = {"content": "<|call|>", "special": True, **flags}
    change_json(
        folder / SETTINGS,
        added_tokens_decoder={str(VOCAB - 9): token},
        additional_special_tokens=["<|more|>"],
    )


def added_by_the_map(folder: Path) -> None:
    (folder / "special_tokens_map.json").write_text(json.dumps({"cls_token": "<|cls|>"}))


def one_text_twice(folder: Path) -> None:
    def add(raw: dict[str, Any]) -> None:
        raw["added_tokens"].append({**raw["added_tokens"][2], "id": VOCAB - 2})

    edit(folder / TOKENIZER, add)


def no_settings(folder: Path) -> None:
    (folder / SETTINGS).unlink()
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": END}))


ADDED: dict[str, Callable[[Path], object]] = {
    "healthy": lambda folder: None,
    "with a gap": added_with_a_gap,
    "in the settings": added_in_settings,
    "by special_tokens_map.json": added_by_the_map,
    "one text twice": one_text_twice,
    "no tokenizer_config.json": no_settings,
}


@pytest.mark.parametrize("quirk", ADDED)
def test_added_tokens_are_those_that_transformers_has(
    checkpoint_folder: Path, tmp_path: Path, quirk: str
) -> None:
    ADDED[quirk](checkpoint_folder)
    loaded = load_tokenizer(checkpoint_folder)
    assert open_checkpoint(checkpoint_folder).added == loaded.get_added_vocab()
    tokens = entries(checkpoint_folder)["tokenizer.ggml.tokens"]
    added = loaded.get_added_vocab()
    assert {text: tokens.index(text) for text in added} == added
    artifact = export_tiny(checkpoint_folder, "onnx", "fp32", tmp_path)
    shipped = load_tokenizer(artifact.path)
    for text in added:
        assert shipped.encode(f"a {text} b") == loaded.encode(f"a {text} b")
    assert not compare_metadata(artifact, checkpoint_folder)


LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('no system message') }}{% elif m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n'"
    " + m['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set before = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set before = '' %}{% endif %}{% for m in rest %}"
    "{% set text = before + m['content'] if loop.first else m['content'] %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + text + ' [/INST]' }}"
    "{% else %}{{ ' ' + text + ' ' + eos_token }}{% endif %}{% endfor %}"
)
PHI4 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'USER: ' + m['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# Template → the mark at which MLC ends a reply.
FRAMED = {
    "Llama 3": (LLAMA3, ["<|eot_id|>"]),
    "Mistral": (MISTRAL, [END]),
    "Gemma": (GEMMA, ["<end_of_turn>"]),
    "Zephyr": (ZEPHYR, [END]),
    "Phi": (PHI, ["<|end|>"]),
    "Phi-4-mini": (PHI4, ["<|end|>"]),
    "Llama 2": (LLAMA2, [END]),
    "Vicuna": (VICUNA, ["</s>"]),
    "ChatML after BOS": ("{{ bos_token }}" + CHAT_TEMPLATE, [END]),
}
CHAT = (
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A test.\nNo more."},
    {"role": "user", "content": "Ok"},
)


@pytest.mark.parametrize("name", FRAMED)
def test_mlc_says_any_template_of_fixed_frames(
    checkpoint_folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    template, marks = FRAMED[name]
    change_json(checkpoint_folder / SETTINGS, chat_template=template)
    framed = chat_config(open_checkpoint(checkpoint_folder), "q0f32")["conv_template"]
    special = {"bos_token": "<|im_start|>", "eos_token": END}
    own = Renderer(checkpoint_folder, template, special)
    for messages in (CHAT[:1], CHAT):
        assert conversation_prompt(framed, messages) == own.render(messages)
    assert framed["stop_str"] == marks
    assert ("removes spaces" in caplog.text) == (name == "Llama 3")


def test_frames_are_what_a_run_expects(checkpoint_folder: Path, tmp_path: Path) -> None:
    change_json(checkpoint_folder / SETTINGS, chat_template=LLAMA3)
    artifact = export_tiny(checkpoint_folder, "mlc", "q0f32", tmp_path)
    assert not compare_metadata(artifact, checkpoint_folder)


def test_chats_that_a_template_refuses_are_left_out(checkpoint_folder: Path) -> None:
    render = Renderer(checkpoint_folder, MISTRAL, {"bos_token": "<s>", "eos_token": "</s>"}).render
    system = ({"role": "system", "content": "Be brief."}, *CHAT[:1])
    with pytest.raises(RefusalError, match="no system message"):
        render(system)
    suite = Suite("s", (Prompt("a", "chat", messages=CHAT), Prompt("b", "chat", messages=system)))
    taken = answerable(suite, render)
    assert [prompt.id for prompt in taken.suite.prompts] == ["a"]
    assert taken.note is not None
    assert "1 of 2 chats" in taken.note
    assert answerable(suite, None).suite is suite
    with pytest.raises(InputError, match="refuses every chat"):
        answerable(Suite("s", suite.prompts[1:]), render)


def test_a_fine_tune_is_not_called_by_the_name_of_its_base(checkpoint_folder: Path) -> None:
    base = "HuggingFaceTB/SmolLM2-135M-Instruct"
    change_json(checkpoint_folder / CONFIG, _name_or_path=base)
    said = entries(checkpoint_folder, name="my-tune")
    assert said["general.name"] == "My Tune"
    assert "general.organization" not in said
    assert said["general.base_model.0.repo_url"] == f"https://huggingface.co/{base}"


def test_two_folders_of_one_name_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    folders = [make_checkpoint(tmp_path / run / "model") for run in ("a", "b")]
    arguments = [f"--model={folder}" for folder in folders]
    done = CliRunner().invoke(export_main, [*arguments, f"--out={tmp_path / 'out'}"])
    assert done.exit_code == 2
    assert "would lie where those of" in done.output
    assert not list((tmp_path / "out").glob("*/*"))


def test_an_origin_says_what_a_checkpoint_says(checkpoint_folder: Path) -> None:
    added_in_settings(checkpoint_folder)
    assert Origin(checkpoint_folder).added == open_checkpoint(checkpoint_folder).added


@pytest.mark.parametrize(
    ("name", "keys", "says"),
    [
        ("tokenizer.json", {"added_tokens": [{"id": 1}]}, "its added tokens are not understood"),
        ("tokenizer.json", {"post_processor": {"type": "BertProcessing"}}, "post_processor is not"),
        ("tokenizer_config.json", {"added_tokens_decoder": {}, "eos_token": 3}, "eos_token is not"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_path(
    checkpoint_folder: Path, name: str, keys: dict[str, Any], says: str
) -> None:
    change_json(checkpoint_folder / name, **keys)
    change_json(checkpoint_folder / GENERATION, eos_token_id=None)
    change_json(checkpoint_folder / CONFIG, eos_token_id=None)
    opened, file = open_checkpoint(checkpoint_folder), re.escape(str(checkpoint_folder / name))
    for read in (lambda: entries(checkpoint_folder, opened), lambda: asked(checkpoint_folder)):
        with pytest.raises(InputError, match=f"^{file}: {says}"):
            read()


def asked(folder: Path) -> object:
    """What the reading side asks of the same files."""
    origin = Origin(folder)
    return origin.around, origin.said.role_ids
