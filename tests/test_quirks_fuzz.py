"""Whatever a checkpoint's files say, the outcome is a plan of an export or one line."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeproof.artifact import ModelIdentity
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint, open_checkpoint
from export.command import format_command
from export.formats import load_format
from export.gguf.metadata import metadata_entries
from export.gguf.tensors import bind
from export.mlc.chat_config import chat_config
from export.mlc.parameters import mlc_targets
from export.mlx import FORMAT
from export.mlx.config import config_json as mlx_config
from export.mlx.exporter import plan_items
from export.onnx.folder import config_json
from export.onnx.genai import genai_config
from tests.fuzzing import mutations
from tests.tiny import change_json, make_checkpoint

MUTATIONS = 2_000
WHOLE = 200  # one of so many goes through the whole export


def prepared(folder: Path) -> Path:
    """A checkpoint in two shards; without a chat template, which would be run in a process."""
    made = make_checkpoint(folder / "checkpoint", shards=2, num_hidden_layers=1)
    change_json(made / "tokenizer_config.json", chat_template=None)
    (made / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    return made


@pytest.mark.parametrize("form", [("gguf", "f32"), ("onnx", "fp32"), ("mlc", "q0f32")])
def test_a_damaged_checkpoint_is_exported_or_refused_in_a_line(
    tmp_path: Path, form: tuple[str, str]
) -> None:
    folder = prepared(tmp_path)
    command, variant = format_command(load_format(form[0])), form[1]
    arguments = [f"--model={folder}", f"--dtype={variant}", f"--out={tmp_path / 'out'}", "--force"]
    for name, data in mutations(folder, seed=1, count=MUTATIONS // WHOLE):
        with changed(folder / name, data):
            done = CliRunner().invoke(command, arguments)
        last = done.output.strip().splitlines()[-1]
        assert done.exit_code == 0 or (done.exit_code == 2 and last.startswith("error: ")), (
            name, data, done.output,
        )  # fmt: skip


def test_any_damage_is_a_plan_or_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a traceback nor a message of several lines can be reached."""
    caplog.set_level(logging.CRITICAL)
    folder = prepared(tmp_path)
    outcomes = {"planned": 0, "refused": 0}
    for name, data in mutations(folder, seed=0, count=MUTATIONS):
        with changed(folder / name, data):
            try:
                refusals = [*planned(folder).values()]
            except InputError as error:
                refusals = [error]
            assert not any("\n" in str(error) for error in refusals), (name, data)
            outcomes["refused" if refusals else "planned"] += 1
    assert min(outcomes.values()) > MUTATIONS // 10, outcomes


@contextlib.contextmanager
def changed(path: Path, data: bytes) -> Iterator[None]:
    """The file has other bytes meanwhile."""
    before = path.read_bytes()
    path.write_bytes(data)
    yield
    path.write_bytes(before)


def planned(folder: Path) -> dict[str, InputError]:
    """All that exporters do before they stream weights; the formats that refuse the checkpoint.

    Raises:
        InputError: it cannot be opened, or its tokenizer cannot.
    """
    checkpoint = open_checkpoint(folder)
    checkpoint.check_tokenizer()
    refused = {}
    for form, plan in {"gguf": _gguf, "onnx": _onnx, "mlc": _mlc, "mlx": _mlx}.items():
        try:
            plan(checkpoint)
        except InputError as error:
            refused[form] = error
    return refused


def _gguf(checkpoint: Checkpoint) -> None:
    bind(checkpoint)
    identity = ModelIdentity("m", None, None, checkpoint.parameter_count, ())
    for entry in metadata_entries(checkpoint, identity, 0):
        entry.encode()


def _onnx(checkpoint: Checkpoint) -> None:
    config_json(checkpoint, "fp32", "float32", "model.onnx", 1)
    genai_config(checkpoint, "model.onnx", in_place=True)
    for name in checkpoint.tokenizer_files:
        checkpoint.shipped(name)


def _mlc(checkpoint: Checkpoint) -> None:
    mlc_targets(checkpoint)
    json.dumps(chat_config(checkpoint, "q0f32")).encode()


def _mlx(checkpoint: Checkpoint) -> None:
    recipe = FORMAT.variant("q4").recipe
    items = plan_items(checkpoint, recipe)
    matrices = {item.module: item.bits for item in items if len(item.target.shape) > 1}
    mlx_config(checkpoint, recipe.group, matrices, recipe.mode)
