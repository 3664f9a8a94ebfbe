"""`edgeproof audit`: files without a manifest, by any maker, against their original.

One audit of many small files is run, and every test looks at what it said of one of them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from gguf import GGUFWriter, LlamaFileType
from onnxruntime.quantization import QuantType, quantize_dynamic

from runtimes.audit.__main__ import main as audit_main
from runtimes.parity import statistics, tokenizer
from runtimes.parity.__main__ import main as parity_main
from tests import tiny, tiny_gguf
from tests.caches import new_cache
from tests.exported import export_tiny
from tests.merged import merge
from tests.parity_runs import invoke
from tests.test_gguf_mixtures import llama_quantise
from tests.test_imatrix import weights_of, write_matrix

CHAT = [{"role": "user", "content": "The capital of France?"}]
TEXT = [{"text": text[:60]} for text in tiny.long_texts(2)] + [{"messages": CHAT}]
TEMPLATE = "tokenizer.chat_template"
HARMLESS = "called-Q6_K"
SHORTER = 328  # rows; the tokenizer has 336 tokens, and the checkpoint 384 rows


@dataclass(frozen=True)
class Audited:
    """What an audit of all files said, and our own run of those that we made."""

    done: Result
    said: dict[str, Any]
    folder: Path
    own: dict[str, Any]

    def of(self, name: str) -> tuple[dict[str, Any], str]:
        """What was found of a file: its inspection, and all that is wrong with it, in a text."""
        (inspected,) = (item for item in self.said["files"] if item["name"] == name)
        artifact = self.artifact(name)
        wrong = [*artifact["reasons"], *artifact["notes"], *inspected["warnings"]]
        return inspected, "\n".join(wrong)

    def artifact(self, name: str) -> dict[str, Any]:
        """Its entry in the parity document."""
        entries = self.said["parity"]["artifacts"]
        (found,) = (item for item in entries if item["variant"] == name)
        return dict(found)


def audit(*arguments: str | Path) -> Result:
    return invoke(audit_main, *arguments)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def shorter(writer: GGUFWriter) -> None:
    for key in ("tokens", "token_type"):
        stored = writer.kv_data[0][f"tokenizer.ggml.{key}"]
        stored.value = stored.value[:SHORTER]


def fewer_rows(arrays: dict[str, np.ndarray]) -> None:
    arrays["token_embd.weight"] = arrays["token_embd.weight"][:SHORTER]


def head_apart(arrays: dict[str, np.ndarray]) -> None:
    """A tied head as a tensor of its own, of another type than the embedding."""
    arrays["output.weight"] = arrays["token_embd.weight"].copy()


def as_converted_wrongly(arrays: dict[str, np.ndarray]) -> None:
    """Query rows in Hugging Face's order, as where somebody forgot to permute them."""
    name = "blk.0.attn_q.weight"
    rows = arrays[name]
    pairs = rows.reshape(tiny_gguf.CONFIG["num_attention_heads"], -1, 2, rows.shape[1])
    arrays[name] = pairs.swapaxes(1, 2).reshape(rows.shape)


def lose_names(path: Path) -> None:
    """As torch.onnx traces linear layers: `onnx::MatMul_1234`."""
    model = onnx.load(path)
    names = {item.name: f"onnx::{i}" for i, item in enumerate(model.graph.initializer)}
    for item in model.graph.initializer:
        item.name = names[item.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    onnx.save(model, path)


def as_genai_builds(graph: Path, target: Path) -> None:
    """Attention without a mask, and, since 0.18, caches whose last axis has a name only."""
    model = onnx.load(graph, load_external_data=False)
    attention = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    assert all(node.input[10] for node in attention)
    for node in attention:
        node.input[10] = ""
    for item in (*model.graph.input, *model.graph.output):
        if item.name.startswith(("past_key_values.", "present.")):
            item.type.tensor_type.shape.dim[3].dim_param = "kv_cache_dim"
    onnx.save(model, target)


def template_and_bos(writer: GGUFWriter) -> None:
    del writer.kv_data[0][TEMPLATE]
    writer.add_add_bos_token(True)


def theta(writer: GGUFWriter) -> None:
    writer.kv_data[0]["llama.rope.freq_base"].value = 10000.0


# Name of the file → how gguf-py is told to write it, and what has to be said of it.
FAULTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "pre-Q8_0": ({"pre": "default"}, ("tokenizer.ggml.pre is 'default'",)),
    "bare-Q8_0": (
        {"metadata": template_and_bos},
        ("chat template: the checkpoint has one", "with what is put around it"),
    ),
    "rope-Q8_0": (
        {"tensors": as_converted_wrongly, "metadata": theta},
        ("layers.0.self_attn.q_proj.weight: rows permuted", "rope.freq_base is 10000"),
    ),
    "vocabulary-Q8_0": (
        {"metadata": shorter, "tensors": fewer_rows},
        ("tokenizer.ggml.tokens is 328 entries", "[328, 256], expected [384, 256]"),
    ),
    HARMLESS: (
        {"plain": ("token_embd.weight", "output.weight"), "tensors": head_apart},
        (
            "the embedding was left unquantised",
            "the head was left unquantised: output.weight is F32",
            "mislabelled: called Q6_K, but 100% of the linear layers' weights are Q8_0",
        ),
    ),
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    folder = tmp_path_factory.mktemp("audit")
    good = tiny_gguf.write(folder / "good-Q8_0", "Q8_0")
    model = good.checkpoint
    own = export_tiny(model, "gguf", "q8_0", folder / "out").path
    blob = Path(shutil.copy(next(own.glob("*.gguf")), folder / "sha256-0123"))  # Ollama's
    files = [blob, good.path.rename(folder / "good-Q8_0.gguf")]
    for name, (how, _) in FAULTS.items():
        written = tiny_gguf.write(folder / name, "Q8_0", **how).path
        files.append(written.rename(folder / f"{name}.gguf"))
    graphs = export_tiny(model, "onnx", "q4", folder / "out").path
    loose = Path(shutil.copytree(graphs, folder / "loose"))
    (loose / "edgeproof.json").unlink()
    files.append(loose / "onnx" / "model_q4.onnx")
    rounded = loose / "onnx" / "model_int8.onnx"
    whole = export_tiny(model, "onnx", "fp32", folder / "out").path / "onnx" / "model.onnx"
    merge(whole, loose / "decoder_model_merged.onnx")
    files.append(loose / "decoder_model_merged.onnx")
    ours = [own, graphs]
    source = export_tiny(model, "gguf", "f32", folder / "out").file(".gguf")
    matrix = write_matrix(folder / "imatrix.gguf", 2, 256, 512)
    for name, importance in (("plain", None), ("imatrix", matrix)):
        target = folder / f"{name}-Q4_K_M.gguf"
        given = {"imatrix": weights_of(importance)} if importance else {}
        llama_quantise(source, LlamaFileType.MOSTLY_Q4_K_M.value, target, **given)
        files.append(target)
        options = {"imatrix": importance} if importance else {}
        ours.append(export_tiny(model, "gguf", "q4_k_m", folder / "out", **options).path)
    genai = folder / "genai"  # as its builder leaves one: no config.json
    genai.mkdir()
    as_genai_builds(whole, genai / "model.onnx")
    shutil.copy(whole.with_name("model.onnx_data"), genai)
    for name in ("genai_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(whole.parent.parent / name, genai)
    settings = read(genai / "genai_config.json")
    settings["model"]["type"] = "llama"  # the builder's word, which GenAI takes as well as ours
    (genai / "genai_config.json").write_text(json.dumps(settings))
    files.append(genai)
    rootless = loose / "onnx" / "model_fp16.onnx"  # without its external data
    shutil.copy(whole, rootless)
    files.append(rootless)
    page = folder / "page.gguf"
    page.write_bytes(b"<!DOCTYPE html>")
    files.append(page)
    # As transformers.js's scripts/quantize.py rounds `--modes int8`: whole matrices, by default.
    how = {"EnableSubgraph": True, "MatMulConstBOnly": True}
    quantize_dynamic(whole, rounded, weight_type=QuantType.QInt8, extra_options=how)
    lose_names(rounded)
    files.append(rounded)
    text = folder / "text.jsonl"
    text.write_text("".join(json.dumps(line) + "\n" for line in TEXT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "COUNT", 50)
        patch.setattr(statistics, "RESAMPLES", 50)
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        extent = ("--text", text, "--no-footprint", "--whole-text")
        invoke(parity_main, *ours, "--checkpoint", model, "--json", folder / "own.json", *extent)
        outputs = ("--json", folder / "audit.json", "--markdown", folder / "audit.md")
        done = audit(*files, "--against", model, *extent, *outputs)
    assert (folder / "audit.json").exists(), done.output
    return Audited(done, read(folder / "audit.json"), folder, read(folder / "own.json"))


@pytest.mark.parametrize(
    ("variant", "name"), [("q8_0", "sha256-0123"), ("q4", "loose/model_q4.onnx")]
)
def test_our_own_file_without_its_manifest_has_the_same_figures(
    audited: Audited, variant: str, name: str
) -> None:
    (expected,) = (item for item in audited.own["artifacts"] if item["variant"] == variant)
    found = audited.artifact(name)
    assert figures(found) == figures(expected)
    same = ("precision", "verdict", "gates", "reasons")
    assert {key: found[key] for key in same} == {key: expected[key] for key in same}


def figures(artifact: dict[str, Any]) -> dict[str, Any]:
    """All that is measured, times and speeds excepted."""
    timed = ("load_seconds", "prefill_tokens_per_second")
    found = {key: value for key, value in artifact["measurement"].items() if key not in timed}
    found["greedy"] = {**found["greedy"], "tokens_per_second": None}
    return found


def test_a_file_of_gguf_py_is_judged_as_ours(audited: Audited) -> None:
    good, ours = (audited.artifact(name) for name in ("good-Q8_0", "sha256-0123"))
    assert good["verdict"] == ours["verdict"] != "FAIL"
    assert figures(good)["estimates"] == figures(ours)["estimates"]


@pytest.mark.parametrize(
    ("variant", "name"),
    [("q4_k_m", "plain-Q4_K_M"), ("q4_k_m-imatrix", "imatrix-Q4_K_M")],
)
def test_a_file_of_llama_cpp_s_quantiser_has_the_figures_of_ours(
    audited: Audited, variant: str, name: str
) -> None:
    (expected,) = (item for item in audited.own["artifacts"] if item["variant"] == variant)
    found = audited.artifact(name)
    assert figures(found) == figures(expected)
    assert [found[key] for key in ("precision", "verdict")] == [
        expected[key] for key in ("precision", "verdict")
    ]


def test_a_graph_that_no_reader_knows_is_judged_by_running_it(audited: Audited) -> None:
    found, wrong = audited.of("loose/model_int8.onnx")
    assert found["precision"] == "8-bit"
    assert "weights were not compared one by one" in wrong
    artifact = audited.artifact("loose/model_int8.onnx")
    assert artifact["verdict"] != "FAIL", wrong
    assert artifact["measurement"]["weights"] is None


def test_a_merged_decoder_is_run_by_both_of_its_branches(audited: Audited) -> None:
    artifact = audited.artifact("loose/decoder_model_merged.onnx")
    assert artifact["verdict"] != "FAIL", artifact["reasons"]
    assert artifact["measurement"]["estimates"]["mean_kl"]["value"] < 1e-6
    assert artifact["measurement"]["greedy"]["identical"] == 1


def test_a_folder_for_genai_needs_no_config(audited: Audited) -> None:
    inspected, wrong = audited.of("genai/model.onnx")
    assert (inspected["says"]["architecture"], inspected["says"]["context"]) == ("llama", "256")
    artifact = audited.artifact("genai/model.onnx")
    assert artifact["verdict"] != "FAIL", wrong
    assert artifact["measurement"]["exact_weights"]
    assert artifact["measurement"]["estimates"]["mean_kl"]["value"] < 1e-6
    assert artifact["measurement"]["padding"] is None
    assert "padded batches were not compared: its attention has no mask" in wrong


def test_what_cannot_be_opened_is_told_of_and_stops_no_other(audited: Audited) -> None:
    unreadable = {item["folder"]: item["reason"] for item in audited.said["parity"]["unreadable"]}
    (page,) = (name for name in unreadable if name.endswith("page.gguf"))
    assert "a web page that was saved in place of the file" in unreadable[page]
    assert "which is missing" in unreadable["loose/model_fp16.onnx"]
    assert [item["path"] for item in audited.said["refused"]] == [page]
    for report in ("audit.md", "audit.html"):
        text = (audited.folder / report).read_text()
        assert "a web page that was saved" in text.replace("\\", "")


def test_the_page_begins_with_the_ranking_and_all_files_in_one_plot(audited: Audited) -> None:
    text = (audited.folder / "audit.html").read_text()
    ranking = text[text.index('id="ranking"') : text.index('id="verdicts"')]
    measured = [i["variant"] for i in audited.said["parity"]["artifacts"] if i["measurement"]]
    drawn = ranking[ranking.index("<svg") :]
    assert [name for name in measured if name not in drawn] == []
    assert text.count("Size of each export against its mean KL divergence") == 2  # wide, narrow


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(audited: Audited, name: str) -> None:
    _, texts = FAULTS[name]
    _, wrong = audited.of(name)
    assert [text for text in texts if text not in wrong] == []
    assert (audited.artifact(name)["verdict"] == "FAIL") == (name != HARMLESS)


def test_what_is_broken_comes_last_in_the_ranking(audited: Audited) -> None:
    failed = [item["verdict"] == "FAIL" for item in audited.said["ranking"]]
    assert failed == sorted(failed)
    first, second, *_ = audited.said["ranking"]
    assert first["behind"] is None
    assert second["behind"]["value"] >= 0
    assert audited.done.exit_code == 1
    assert "files did not pass" in audited.done.output
    assert (audited.folder / "audit.html").exists()
    assert (audited.folder / "audit.md").read_text().count("\n| ") == len(failed) + 2 + 2
