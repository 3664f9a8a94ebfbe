"""Nothing ships unchecked: every file and key of an export is compared, exercised or free."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgeproof.artifact import Artifact
from edgeproof.files.hashing import OutputFile
from runtimes.contents import Content, Exercised, Free, Origin, differences, leaves
from runtimes.contents.free import FREE, free_keys
from runtimes.formats import reader_of
from runtimes.parity.localise import Cause
from runtimes.parity.localise.contents import compare_contents
from runtimes.parity.localise.metadata import compare_metadata
from tests.faults.fault import Finds, Plant
from tests.faults.graphs import edited
from tests.faults.metadata import gguf_value
from tests.faults.planting import export, rehashed
from tests.tiny import FAMILIES, LLAMA3_ROPE, make_checkpoint

EVERY = {
    "onnx": ("fp32", "fp16", "q8", "int8", "uint8", "q4", "q4f16", "bnb4"),
    "gguf": ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_k_m"),
    "mlx": ("f32", "f16", "bf16", "q8", "q4", "mxfp4"),
    "mlc": ("q0f32", "q0f16", "q0bf16", "q3f16_0", "q4f16_0", "q4f16_1", "q4f32_1"),
}
OPTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("onnx", "fp16", {"graph": "portable"}),
    ("onnx", "fp16", {"residual_scale": 0.25}),
    ("gguf", "f16", {"split_max_tensors": 20}),
)
CASES = [
    *((form, variant, {}) for form, variants in EVERY.items() for variant in variants),
    *OPTIONS,
]
SAMPLING = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1}
# Leaves of one document that are changed one by one.
CHANGED = 150


def made(root: Path, form: str, variant: str | None = None, **options: Any) -> Artifact:
    """A tiny export; the checkpoint lies beside it."""
    return export(checkpoint(root), form, root / form, clean(variant, options))


def clean(variant: str | None, options: dict[str, Any]) -> Plant:
    return Plant(Finds(Cause.NONE), variant=variant, options=options)


def checkpoint(root: Path, **config: Any) -> Path:
    """A tiny model that says how to sample, and has a copy of its special tokens."""
    folder = make_checkpoint(root / "checkpoint", **config)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **SAMPLING}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    return folder


def contents(artifact: Artifact, folder: Path) -> list[Content]:
    return [*reader_of(artifact).contents(artifact, Origin(folder))]


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 3
    return f"{value}x" if isinstance(value, str) else ["other"]


def places(said: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a document's leaves are; an empty object or list is one."""
    inside = isinstance(said, dict | list) and bool(said)
    if not inside:
        yield path
        return
    for key, value in said.items() if isinstance(said, dict) else enumerate(said):
        yield from places(value, (*path, key))


def at(said: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        said = said[key]
    return said


@pytest.mark.parametrize(("form", "variant", "options"), CASES, ids=str)
def test_every_file_and_key_of_an_export_is_accounted_for(
    tmp_path: Path, form: str, variant: str, options: dict[str, Any]
) -> None:
    artifact = made(tmp_path, form, variant, **options)
    assert compare_contents(artifact, tmp_path / "checkpoint") == ()
    found = contents(artifact, tmp_path / "checkpoint")
    accounts = [
        account for content in found for _, account in leaves(content.said, content.expected)
    ]
    assert all(item.reason for item in accounts if isinstance(item, Free))
    compared = [item for item in accounts if not isinstance(item, Free | Exercised)]
    assert len(compared) > len(accounts) / 3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_accounted_for(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **FAMILIES[family])
    for form in ("onnx", "gguf"):
        artifact = export(folder, form, tmp_path / form, clean(None, {}))
        assert compare_contents(artifact, folder) == ()


@pytest.mark.parametrize("form", EVERY)
def test_a_change_of_any_key_is_found_unless_a_run_exercises_it_or_it_is_free(
    tmp_path: Path, form: str
) -> None:
    artifact = made(tmp_path, form)
    rng = random.Random(5)
    for content in contents(artifact, tmp_path / "checkpoint"):
        if content.said is None:
            continue
        paths = [*places(content.said)]
        for path in rng.sample(paths, min(CHANGED, len(paths))):
            accounts = [content.expected]
            for key in path:
                last = accounts[-1]
                inside = isinstance(last, dict | list | tuple)
                accounts += [last[key]] if inside else []
            if isinstance(accounts[-1], Free | Exercised):
                continue
            changed = copy.deepcopy(content.said)
            place = at(changed, path[:-1])
            place[path[-1]] = other(place[path[-1]])
            assert [*differences(changed, content.expected)], (content.file, path)


@pytest.mark.parametrize("form", EVERY)
def test_an_unknown_key_is_found_wherever_it_is(tmp_path: Path, form: str) -> None:
    artifact = made(tmp_path, form)
    for content in contents(artifact, tmp_path / "checkpoint"):
        tables = {path[:end] for path in places(content.said) for end in range(len(path))}
        for path in tables:
            changed = copy.deepcopy(content.said)
            table = at(changed, path)
            if isinstance(table, dict):
                table["sliding_window_of_late"] = 256
                assert [*differences(changed, content.expected)], (content.file, path)


def edit(artifact: Artifact, name: str, change: Callable[[dict[str, Any]], None]) -> Artifact:
    """Change a JSON file, under a manifest that fits."""
    path = artifact.path / name
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return rehashed(artifact)


def swap_rare_merges(tokenizer: dict[str, Any]) -> None:
    merges = tokenizer["model"]["merges"]
    merges[-1], merges[-2] = merges[-2], merges[-1]


@pytest.mark.parametrize("form", ["onnx", "mlc"])
def test_two_rare_merges_that_change_places_are_found(tmp_path: Path, form: str) -> None:
    artifact = edit(made(tmp_path, form), "tokenizer.json", swap_rare_merges)
    (finding,) = compare_metadata(artifact, tmp_path / "checkpoint")
    assert finding.cause is Cause.TOKENIZER
    assert "model.merges[" in finding.text


def test_data_files_that_do_not_exist_are_found(tmp_path: Path) -> None:
    def more(config: dict[str, Any]) -> None:
        config["transformers.js_config"]["use_external_data_format"] = {"model_fp16.onnx": 3}

    (finding,) = compare_metadata(
        edit(made(tmp_path, "onnx"), "config.json", more), tmp_path / "checkpoint"
    )
    assert "use_external_data_format" in str(finding.key)
    assert finding.text.endswith("is 3, expected 1")


def test_an_old_index_that_says_something_else_is_found(tmp_path: Path) -> None:
    def move(index: dict[str, Any]) -> None:
        index["records"][0]["records"][1]["byteOffset"] += 64

    artifact = edit(made(tmp_path, "mlc"), "ndarray-cache.json", move)
    (finding,) = compare_metadata(artifact, tmp_path / "checkpoint")
    assert str(finding.key).startswith("ndarray-cache.json records[0].records[1].byteOffset")


def test_a_file_that_nobody_knows_and_one_that_is_gone_are_found(tmp_path: Path) -> None:
    artifact = made(tmp_path, "onnx")
    (artifact.path / "special_tokens_map.json").rename(artifact.path / "onnx" / "left.json")
    outputs = tuple(
        replace(item, path="onnx/left.json") if item.path == "special_tokens_map.json" else item
        for item in artifact.manifest.outputs
    )
    artifact = replace(artifact, manifest=replace(artifact.manifest, outputs=outputs))
    keys = {finding.key for finding in compare_contents(artifact, tmp_path / "checkpoint")}
    assert keys == {"special_tokens_map.json", "onnx/left.json"}


def test_a_graph_that_no_runtime_opens_is_found(tmp_path: Path) -> None:
    """In another folder, with its data: the graphs at the root and in `onnx` are those that run."""
    artifact = made(tmp_path, "onnx")
    names = [item.path for item in artifact.manifest.outputs if item.path.startswith("onnx/")]
    more = [OutputFile(name.replace("onnx/", "more/onnx/", 1), 1, "0" * 64) for name in names]
    shutil.copytree(artifact.path / "onnx", artifact.path / "more" / "onnx")
    outputs = (*artifact.manifest.outputs, *more)
    artifact = replace(artifact, manifest=replace(artifact.manifest, outputs=outputs))
    found = compare_contents(artifact, tmp_path / "checkpoint")
    assert {finding.key for finding in found} == {item.path for item in more}


def test_divisors_of_rotary_frequencies_are_compared(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, rope_scaling=LLAMA3_ROPE)
    artifact = export(folder, "gguf", tmp_path / "gguf", clean("f16", {}))
    config = json.loads((folder / "config.json").read_text())
    config["rope_scaling"]["factor"] = 4.0
    (folder / "config.json").write_text(json.dumps(config))
    (finding,) = compare_contents(artifact, folder)
    assert "rope_freqs.weight[" in str(finding.key)


def test_the_page_lists_every_free_key_with_its_reason() -> None:
    page = (Path(__file__).parent.parent / "docs" / "parity.md").read_text("utf-8")
    for place, reason in FREE.items():
        row = next(
            line for line in page.splitlines() if line.startswith("|") and f"`{place}`" in line
        )
        assert row.endswith(f"| {reason} |")


def test_a_free_place_stands_for_the_keys_that_begin_so() -> None:
    keys = ("general.tags", "general.base_model.0.name", "general.tagless", "llama.vocab_size")
    assert set(free_keys(keys)) == {"general.tags", "general.base_model.0.name"}


def sayings(artifact: Artifact, root: Path) -> str:
    """All that is found in what an artifact says, in one text."""
    return "\n".join(item.text for item in compare_metadata(artifact, root / "checkpoint"))


def axes(graph: onnx.GraphProto, name: str, other: str) -> None:
    for value in (*graph.input, *graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == name:
                axis.dim_param = other


def unsized(graph: onnx.GraphProto) -> None:
    """As GenAI's builder: transformers.js would make a cache of heads without a size."""
    for value in graph.input:
        if value.name.startswith("past_key_values."):
            value.type.tensor_type.shape.dim[3].dim_param = "kv_cache_dim"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda graph: axes(graph, "batch_size", "s10"), '[1] is "s10", expected "batch_size"'),
        (unsized, '.0.key[4] is "kv_cache_dim", expected 16'),
    ],
)
def test_axes_by_which_transformers_js_makes_a_cache_are_compared(
    tmp_path: Path, edit: Callable[[onnx.GraphProto], None], said: str
) -> None:
    artifact = made(tmp_path, "onnx")
    edited(edit)(artifact)
    assert said in sayings(rehashed(artifact), tmp_path)


def test_a_graph_under_the_name_of_another_dtype_is_found(tmp_path: Path) -> None:
    artifact = made(tmp_path, "onnx")
    manifest = replace(artifact.manifest, variant=replace(artifact.manifest.variant, name="q4f16"))
    found = sayings(replace(artifact, manifest=manifest), tmp_path)
    assert "use_external_data_format.model_fp16.onnx is 1, expected no such key" in found


def test_a_gguf_file_is_called_after_what_it_holds(tmp_path: Path) -> None:
    artifact = made(tmp_path, "gguf")
    gguf_value("general.file_type", 7)(artifact)
    assert "general.file_type is 7, expected 1" in sayings(rehashed(artifact), tmp_path)
    path = artifact.file(".gguf")
    gguf_value("general.file_type", 1)(artifact)
    path = path.rename(path.with_name(path.name.replace("F16", "Q8_0")))
    outputs = (replace(artifact.manifest.outputs[0], path=path.name),)
    artifact = replace(artifact, manifest=replace(artifact.manifest, outputs=outputs))
    assert f'its name is "{path.name}", expected a name with F16 in it' in sayings(
        artifact, tmp_path
    )


def test_how_mlx_layers_are_quantised_is_said_twice_alike(tmp_path: Path) -> None:
    def other_bits(config: dict[str, Any]) -> None:
        config["quantization_config"] = {**config["quantization_config"], "bits": 8}

    artifact = edit(made(tmp_path, "mlx", "q4"), "config.json", other_bits)
    assert sayings(artifact, tmp_path) == "config.json quantization_config.bits is 8, expected 4"


def test_mlc_separators_and_chunks_that_runtimes_read_otherwise_are_found(tmp_path: Path) -> None:
    def three(chat: dict[str, Any]) -> None:
        separators = chat["conv_template"]["seps"]
        chat["conv_template"]["seps"] = [separators[0], " ", separators[-1]]
        chat["model_config"]["prefill_chunk_size"] = 7

    found = sayings(edit(made(tmp_path, "mlc"), "mlc-chat-config.json", three), tmp_path)
    assert found.endswith("model_config.prefill_chunk_size is 7, expected 256 (and 1 more)")


@pytest.mark.parametrize("form", EVERY)
def test_sizes_that_the_manifest_counted_wrongly_are_found(tmp_path: Path, form: str) -> None:
    artifact = made(tmp_path, form)
    weights = {**artifact.manifest.weights, "effective_bpw": 4.5}
    artifact = replace(artifact, manifest=replace(artifact.manifest, weights=weights))
    assert "edgeproof.json weights.effective_bpw is 4.5, expected 16" in sayings(artifact, tmp_path)


@pytest.mark.parametrize(
    ("form", "name"),
    [("mlx", "model-extra.safetensors"), ("onnx", "adapter_config.json"), ("gguf", "b/x.gguf")],
)
def test_a_file_that_is_not_in_the_manifest_and_may_be_read_is_found(
    tmp_path: Path, form: str, name: str
) -> None:
    artifact = made(tmp_path, form)
    (artifact.path / "LICENSE").write_text("nobody reads it")
    assert sayings(artifact, tmp_path) == ""
    path = artifact.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    assert sayings(artifact, tmp_path) == f"{name}: nothing accounts for this file"


def test_a_scale_that_is_off_by_less_than_a_thousandth_is_found(tmp_path: Path) -> None:
    def off(graph: onnx.GraphProto) -> None:
        for attribute in (item for node in graph.node for item in node.attribute):
            attribute.f *= 1.0006 if attribute.name == "scale" else 1

    artifact = made(tmp_path, "onnx")
    edited(off)(artifact)
    found = sayings(rehashed(artifact), tmp_path)
    assert "scale is 0.25015, the checkpoint's attention_scale is 0.25 (and 5 more)" in found
