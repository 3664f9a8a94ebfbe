"""Whether our GGUF files are those of llama.cpp's own converter, family by family.

`python -m benchmarks.converter LLAMA_CPP` takes a folder with `convert_hf_to_gguf.py`,
`conversion/` and `gguf-py/` (in the sources of llama-cpp-python: `vendor/llama.cpp`). Tiny bfloat16
checkpoints go through both: the same metadata with the same types, the same tensors in the same
order with the same bytes; where only keys are in another order, or one says what llama.cpp assumes
without it, the line says so. SentencePiece's are trained here, with a tokenizer.model for the
converter. The converter knows pre-tokenizers by a hash of published vocabularies only, so that it
is told ours for `tokenizer.ggml.pre`. Exit 1 where anything else differs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import gguf

from benchmarks.sentencepiece_model import write_model
from benchmarks.shapes import FAMILIES
from tests.sentencepiece import GEMMA, LEGACY, metaspace
from tests.tiny import LLAMA3_ROPE, change_json, make_checkpoint, write_tokenizer

NAME = "Tiny-1M"
PRE = "smollm"  # of tests.tiny's tokenizer
DTYPES = {"f32": "F32", "f16": "BF16", "bf16": "BF16"}  # the checkpoint's
CASES: dict[str, dict[str, Any]] = {
    **FAMILIES,
    "llama, untied": {"tie_word_embeddings": False},
    "llama, head_dim": {"head_dim": 32},
    "llama, llama3 rope": {"rope_scaling": LLAMA3_ROPE},
    "llama, linear rope": {"rope_scaling": {"type": "linear", "factor": 2.5}},
    "llama, biases": {"attention_bias": True},
    "qwen2, untied": {**FAMILIES["qwen2"], "tie_word_embeddings": False},
}
# With a tokenizer.model beside tokenizer.json: what is before its merges, and its settings.
SENTENCEPIECE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama, SentencePiece": (LEGACY, {"kind": "LlamaTokenizer", "prefix": True, "bos": True}),
    "llama, untied, SentencePiece": (
        LEGACY, {"kind": "LlamaTokenizer", "prefix": True, "bos": False},
    ),
    "mistral, SentencePiece": (
        metaspace("first"), {"kind": "LlamaTokenizerFast", "prefix": True, "bos": True},
    ),
    "phi3, SentencePiece": (LEGACY, {"kind": "LlamaTokenizer", "prefix": True, "bos": False}),
    "gemma3_text, SentencePiece": (
        GEMMA, {"kind": "GemmaTokenizer", "prefix": False, "bos": True},
    ),
}  # fmt: skip
CASES |= {name: CASES[name.removesuffix(", SentencePiece")] for name in SENTENCEPIECE}
# By this class the converter knows Phi-4-mini's byte-level tokenizer from Phi-3's.
SETTINGS: dict[str, dict[str, Any]] = {"phi3": {"tokenizer_class": "GPT2Tokenizer"}}
# Of the embedding it drops rows without a token, where there is no tokenizer.model.
WITHOUT_PADDING = {"gemma3_text"}
ORDER = "order: "  # of keys, which no reader heeds
# Between a pair of texts, as rerankers take them; llama.cpp assumes it where the key is not there.
ASSUMED = {"tokenizer.ggml.add_sep_token": (["BOOL"], False)}
LEFT_OUT = "left out: "
RUNNER = """
import runpy, sys
root, sys.argv = sys.argv[1], sys.argv[2:]
sys.path[:0] = [root, root + "/gguf-py"]
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "PRE"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@click.command(help=__doc__)
@click.argument("llama_cpp", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--family", "families", multiple=True, type=click.Choice(list(CASES)))
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(list(DTYPES)))
def main(llama_cpp: Path, families: tuple[str, ...], dtypes: tuple[str, ...]) -> None:
    """Print one line for each pair of files."""
    failed = 0
    for name in families or CASES:
        for dtype in dtypes or ("f16",):
            with tempfile.TemporaryDirectory(prefix="edgeproof-converter-") as temporary:
                found = list(_compared(llama_cpp.resolve(), Path(temporary), name, dtype))
            failed += any(not text.startswith((ORDER, LEFT_OUT)) for text in found)
            print(f"{name} {dtype}: {'; '.join(found) or 'the same'}", flush=True)
    sys.exit(1 if failed else 0)


def differences(ours: gguf.GGUFReader, theirs: gguf.GGUFReader) -> Iterator[str]:
    """What of keys, values, types and order, and of the tensors, is not the same."""
    own, other = _metadata(ours), _metadata(theirs)
    for key in [*own, *(key for key in other if key not in own)]:
        if key not in own and key in ASSUMED and other[key] == ASSUMED[key]:
            yield f"{LEFT_OUT}{key}, which is as llama.cpp assumes"
        elif own.get(key) != other.get(key):
            yield f"{key}: {_short(own.get(key))} for {_short(other.get(key))}"
    shared = [key for key in own if key in other], [key for key in other if key in own]
    for key, its_key in zip(*shared, strict=True):
        if key != its_key:
            yield f"{ORDER}{key} stands where {its_key} does"
            break
    mine, its = _tensors(ours), _tensors(theirs)
    for name in [*mine, *(name for name in its if name not in mine)]:
        if mine.get(name) != its.get(name):
            yield f"tensor {name}"
    if list(mine) != list(its) and mine.keys() == its.keys():
        yield "the order of the tensors"


def _compared(llama_cpp: Path, folder: Path, name: str, dtype: str) -> Iterator[str]:
    changes = CASES[name]
    if name in WITHOUT_PADDING:
        changes = {**changes, "vocab_size": _tokens(folder / "tokenizer")}
    checkpoint = make_checkpoint(folder / NAME, dtype=DTYPES[dtype], **changes)
    if name in SENTENCEPIECE:
        front, how = SENTENCEPIECE[name]
        write_model(checkpoint, front, **how)
    else:
        # Where the settings do not say, we write false, so that no default of llama.cpp decides.
        added = {"add_bos_token": False, **SETTINGS.get(name, {})}
        change_json(checkpoint / "tokenizer_config.json", **added)
    theirs = folder / "theirs.gguf"
    script = llama_cpp / "convert_hf_to_gguf.py"
    runner = RUNNER.replace("PRE", PRE)
    _run(["-c", runner, llama_cpp, script, checkpoint, "--outtype", dtype, "--outfile", theirs])
    _run(["-m", "export.gguf", "-m", checkpoint, "--name", NAME, "-d", dtype, "-o", folder / "out"])
    (ours,) = (folder / "out").rglob("*.gguf")
    yield from differences(gguf.GGUFReader(ours), gguf.GGUFReader(theirs))


def _tokens(folder: Path) -> int:
    """How many tokens the tiny checkpoints' tokenizer has."""
    folder.mkdir()
    write_tokenizer(folder)
    document = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    return len(document["model"]["vocab"])


def _run(arguments: list[Any]) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"{arguments[0]} {arguments[1]}: {done.stderr[-2000:]}")


def _metadata(reader: gguf.GGUFReader) -> dict[str, Any]:
    return {
        key: ([kind.name for kind in field.types], field.contents())
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.")
    }


def _tensors(reader: gguf.GGUFReader) -> dict[str, Any]:
    return {t.name: (t.tensor_type.name, list(t.shape), t.data.tobytes()) for t in reader.tensors}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:60]}…"


if __name__ == "__main__":
    main()
