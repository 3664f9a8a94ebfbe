from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.exported import export_tiny
from tests.tiny import make_checkpoint


def exported(folder: Path, generation: dict[str, Any] | None, **changes: Any) -> tuple[Path, Any]:
    checkpoint = make_checkpoint(folder / "checkpoint", **changes)
    path = checkpoint / "generation_config.json"
    path.unlink() if generation is None else path.write_text(json.dumps(generation))
    artifact = export_tiny(checkpoint, "onnx", "fp16", folder).path
    return artifact, json.loads((artifact / "genai_config.json").read_text())


def test_it_names_every_input_and_output_of_the_graph_that_it_opens(tmp_path: Path) -> None:
    artifact, config = exported(tmp_path, {})
    decoder = config["model"]["decoder"]
    graph = onnx.load(artifact / decoder["filename"], load_external_data=False).graph
    layers = range(decoder["num_hidden_layers"])
    for kind, values in (("inputs", graph.input), ("outputs", graph.output)):
        names = [name % n for name in decoder[kind].values() if "%d" in name for n in layers]
        names += [name for name in decoder[kind].values() if "%d" not in name]
        assert sorted(names) == sorted(value.name for value in values)
    cache = next(value for value in graph.input if value.name.startswith("past"))
    dims = [dim.dim_value for dim in cache.type.tensor_type.shape.dim]
    assert dims[1] == decoder["num_key_value_heads"]
    assert dims[3] == decoder["head_size"]
    assert decoder["num_attention_heads"] == 4
    assert config["model"]["context_length"] == config["search"]["max_length"] == 256


@pytest.mark.parametrize(
    ("generation", "sampling"),
    [
        (None, (True, 0.2, 0.9, 0)),
        ({"temperature": None, "top_k": None}, (True, 0.2, 0.9, 0)),
        ({"temperature": 0.7, "top_p": 0.8, "top_k": 20}, (True, 0.7, 0.8, 20)),
        ({"do_sample": False}, (False, 0.2, 0.9, 0)),
    ],
)
def test_sampling_is_the_checkpoints_else_the_cards(
    tmp_path: Path, generation: dict[str, Any] | None, sampling: tuple[Any, ...]
) -> None:
    search = exported(tmp_path, generation)[1]["search"]
    assert tuple(search[k] for k in ("do_sample", "temperature", "top_p", "top_k")) == sampling


@pytest.mark.parametrize(
    ("generation", "changes", "ids"),
    [
        ({"eos_token_id": [2, 0]}, {"pad_token_id": None}, (1, [2, 0], 2)),
        (None, {"eos_token_id": None, "pad_token_id": 0}, (1, 2, 0)),  # the tokenizer's <|im_end|>
    ],
)
def test_special_tokens_are_the_generation_configs_else_the_configs_else_the_tokenizers(
    tmp_path: Path, generation: dict[str, Any] | None, changes: dict[str, Any], ids: tuple[Any, ...]
) -> None:
    model = exported(tmp_path, generation, **changes)[1]["model"]
    assert tuple(model[f"{kind}_token_id"] for kind in ("bos", "eos", "pad")) == ids
