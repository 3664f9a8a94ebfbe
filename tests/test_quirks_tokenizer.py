"""Checkpoints that people really have: tokenizers and chat templates that were edited by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gguf import GGUFReader
from tokenizers import Tokenizer

from edgeproof.checkpoints.chat_template import template_source
from edgeproof.errors import InputError
from export.checkpoint import open_checkpoint
from export.command import format_command
from export.gguf import FORMAT
from export.gguf.vocabulary import vocabulary_entries
from runtimes.parity.inputs import recorded_inputs
from runtimes.parity.localise.contents import compare_contents
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.pytorch.loading import load_tokenizer
from runtimes.pytorch.text import CheckpointText
from runtimes.said import said_of
from tests.exported import export_tiny
from tests.tiny import CHAT_TEMPLATE, VOCAB, change_json

PADDING = {
    "strategy": {"Fixed": 24}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 2,
    "pad_type_id": 0, "pad_token": "<|im_end|>",
}  # fmt: skip
TRUNCATION = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text("utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), "utf-8")


def test_one_text_under_two_ids_is_refused(checkpoint_folder: Path) -> None:
    """llama.cpp's assertion would end the process that loads it."""
    text = f"[PAD{VOCAB - 1}]"  # what llama.cpp's converter calls an id without a token

    def name_it_so(raw: dict[str, Any]) -> None:
        raw["added_tokens"].append(
            {**raw["added_tokens"][2], "content": text, "id": len(raw["model"]["vocab"])}
        )

    edit(checkpoint_folder, name_it_so)
    with pytest.raises(InputError, match=r"have the same text '\[PAD"):
        vocabulary_entries(open_checkpoint(checkpoint_folder), space_prefix=False)


def test_an_empty_post_processor_is_one_line(checkpoint_folder: Path) -> None:
    processor = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}
    edit(checkpoint_folder, lambda raw: raw.update(post_processor=processor))
    with pytest.raises(InputError, match="not understood"):
        vocabulary_entries(open_checkpoint(checkpoint_folder), space_prefix=False)


def test_the_template_file_goes_before_the_old_setting(checkpoint_folder: Path) -> None:
    old = CHAT_TEMPLATE.replace("<|im_start|>", "<|endoftext|>")
    change_json(checkpoint_folder / "tokenizer_config.json", chat_template=old)
    (checkpoint_folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    entries = vocabulary_entries(open_checkpoint(checkpoint_folder), space_prefix=False)
    (template,) = (item.value for item in entries if item.key == "tokenizer.chat_template")
    assert template == CHAT_TEMPLATE


@pytest.mark.parametrize("form", ["gguf", "onnx", "mlx"])
def test_templates_of_a_folder_of_their_own_are_kept(
    checkpoint_folder: Path, tmp_path: Path, form: str
) -> None:
    """Where transformers 5 saves all but the usual one."""
    place = checkpoint_folder / "additional_chat_templates/tool_use.jinja"
    place.parent.mkdir()
    place.write_text("{{ tools }}" + CHAT_TEMPLATE)
    (checkpoint_folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    reference = load_tokenizer(checkpoint_folder).chat_template
    assert reference == {"default": CHAT_TEMPLATE, "tool_use": "{{ tools }}" + CHAT_TEMPLATE}
    artifact = export_tiny(checkpoint_folder, form, {"onnx": "fp32"}.get(form, "f32"), tmp_path)
    assert compare_contents(artifact, checkpoint_folder) == ()
    recorded = recorded_inputs(checkpoint_folder, [artifact])
    assert recorded == artifact.manifest.model.inputs
    assert place.relative_to(checkpoint_folder).as_posix() in {item.path for item in recorded}
    if form == "gguf":
        fields = GGUFReader(artifact.file(".gguf")).fields
        found = fields["tokenizer.chat_template.tool_use"].contents()
        assert found == reference["tool_use"]
    else:
        assert load_tokenizer(artifact.path).chat_template == reference
    place.write_text("{{ messages }}")
    assert compare_contents(artifact, checkpoint_folder) != ()
    place.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"tool_use\.jinja: cannot be read as UTF-8 text"):
        export_tiny(checkpoint_folder, form, {"onnx": "fp32"}.get(form, "f32"), tmp_path)


def test_templates_with_names_alone_are_none_for_a_chat(checkpoint_folder: Path) -> None:
    place = checkpoint_folder / "additional_chat_templates/tool_use.jinja"
    place.parent.mkdir()
    place.write_text(CHAT_TEMPLATE)
    (checkpoint_folder / "chat_template.jinja").unlink(missing_ok=True)
    for usual in (False, True):
        if usual:
            (checkpoint_folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
        text = CheckpointText(load_tokenizer(checkpoint_folder), said_of(checkpoint_folder), 0)
        assert text.has_chat_template == usual
        if usual:
            assert text.render_chat([{"role": "user", "content": "hi"}])


def test_templates_of_one_name_in_gguf_are_refused(checkpoint_folder: Path) -> None:
    named = {"default": CHAT_TEMPLATE, "a-b": "A", "a_b": "B"}
    change_json(checkpoint_folder / "tokenizer_config.json", chat_template=named)
    with pytest.raises(InputError, match="two would have one name in GGUF"):
        vocabulary_entries(open_checkpoint(checkpoint_folder), space_prefix=False)
    del named["a-b"]
    change_json(checkpoint_folder / "tokenizer_config.json", chat_template=named)
    entries = vocabulary_entries(open_checkpoint(checkpoint_folder), space_prefix=False)
    assert load_tokenizer(checkpoint_folder).chat_template == named
    assert "B" in [entry.value for entry in entries]


def test_an_error_names_the_file_of_its_template(checkpoint_folder: Path) -> None:
    place = checkpoint_folder / "additional_chat_templates"
    place.mkdir()
    (checkpoint_folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    for name in ("other", "a-b", "a_b"):
        (place / f"{name}.jinja").write_text("A")
    with pytest.raises(InputError, match=r"additional_chat_templates/a-b\.jinja: of the chat"):
        vocabulary_entries(open_checkpoint(checkpoint_folder), space_prefix=False)
    assert template_source(checkpoint_folder).name == "chat_template.jinja"
    (place / "default.jinja").write_text("B")
    assert load_tokenizer(checkpoint_folder).chat_template["default"] == "B"
    assert template_source(checkpoint_folder) == place / "default.jinja"


@pytest.mark.parametrize(("form", "variant"), [("onnx", "fp32"), ("mlc", "q0f32")])
def test_padding_and_truncation_are_not_shipped(
    checkpoint_folder: Path, tmp_path: Path, form: str, variant: str
) -> None:
    edit(checkpoint_folder, lambda raw: raw.update(padding=PADDING, truncation=TRUNCATION))
    artifact = export_tiny(checkpoint_folder, form, variant, tmp_path)
    shipped = Tokenizer.from_file(str(artifact.path / "tokenizer.json"))
    assert shipped.padding is None
    assert shipped.truncation is None
    assert not compare_metadata(artifact, checkpoint_folder)


@pytest.mark.parametrize("part", ["vocab", "merges"])
def test_a_tokenizer_that_nothing_opens_is_refused(
    checkpoint_folder: Path, tmp_path: Path, part: str
) -> None:
    def damage(raw: dict[str, Any]) -> None:
        merge = raw["model"]["merges"][-1]
        if part == "merges":
            del raw["model"]["merges"]
        else:
            del raw["model"]["vocab"]["".join(merge)]

    edit(checkpoint_folder, damage)
    arguments = ["--model", str(checkpoint_folder), "-d", "f32", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(format_command(FORMAT), arguments)
    assert done.exit_code == 2
    assert "tokenizer.json: cannot be opened" in done.output
    assert not (tmp_path / "out").exists()
