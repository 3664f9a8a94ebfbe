"""webllm-model.json, and the model libraries that are accepted beside the weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, read_config
from export.mlc import FORMAT
from export.mlc.__main__ import main
from export.mlc.app_record import app_config
from export.mlc.exporter import stored_arrays
from export.mlc.model_library import CompiledFor, check_compiled_for, read_model_library
from export.mlc.schemes import SCHEMES
from export.mlc.shards import StoredArray
from export.mlc.wasm import initial_memory
from tests.exported import export_tiny
from tests.tiny import config as tiny_config
from tests.tiny import make_checkpoint
from tests.wasm_library import build_library, metadata

ATTENTION = {"heads": 4, "kv_heads": 2, "head_dim": 16, "theta": 100000}


def record_of(artifact: Artifact) -> dict[str, Any]:
    (record,) = json.loads((artifact.path / "webllm-model.json").read_text())["model_list"]
    return dict(record)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    """A tiny checkpoint and its artifact without a model library."""
    folder = tmp_path_factory.mktemp("plain")
    checkpoint = make_checkpoint(folder / "checkpoint")
    return checkpoint, export_tiny(checkpoint, "mlc", "q4f16_1", folder)


@pytest.fixture(scope="module")
def facts(plain: tuple[Path, Artifact]) -> dict[str, Any]:
    """The metadata of a library that fits."""
    index = json.loads((plain[1].path / "tensor-cache.json").read_text())
    return metadata(read_config(tiny_config())[0], index, "q4f16_1")


@pytest.fixture(scope="module")
def library(facts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tvm")
    path = tmp_path_factory.mktemp("library") / "model.wasm"
    path.write_bytes(build_library(facts, **ATTENTION))
    return path


def test_the_folder_has_mlcs_name_which_is_the_models_id(plain: tuple[Path, Artifact]) -> None:
    assert plain[1].path.parts[-3:] == ("tiny", "mlc", "llama-0M-q4f16_1-MLC")
    assert plain[1].path.name == record_of(plain[1])["model_id"]
    variant = FORMAT.variant("q0f32", raw_f32=True)
    assert FORMAT.folder("Some model/v1", variant) == "Some-model-v1-q0f32-raw-f32-MLC"


def test_the_record_is_an_app_config_entry(plain: tuple[Path, Artifact]) -> None:
    record = record_of(plain[1])
    shards = json.loads((plain[1].path / "tensor-cache.json").read_text())["records"]
    sizes = [item["nbytes"] for shard in shards for item in shard["records"]]
    cache, chunk = 2 * 3 * 2 * 16 * 256 * 2, 256 * (4 * 160 + 64) * 2
    # The checkpoint has no name of its own, and none of a folder may get into the bytes.
    assert record == {
        "model": "llama-0M-q4f16_1-MLC",
        "model_id": "llama-0M-q4f16_1-MLC",
        "vram_required_MB": round((sum(sizes) + cache + chunk) / 2**20, 2),
        "buffer_size_required_bytes": max(*sizes, cache // 3),
        "required_features": ["shader-f16"],
        "overrides": {"context_window_size": 256},
    }


def test_features_follow_the_scheme(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    assert "required_features" not in record_of(export_tiny(folder, "mlc", "q4f32_1", tmp_path))
    bf16 = export_tiny(folder, "mlc", "q0bf16", tmp_path)
    assert not (bf16.path / "webllm-model.json").exists()


# Published in web-llm's src/config.ts for a context of 4096.
@pytest.mark.parametrize(
    ("size", "scheme", "megabytes"),
    [
        ("135M", "q0f16", 359.69),
        ("135M", "q0f32", 719.38),
        ("360M", "q0f16", 871.99),
        ("360M", "q0f32", 1743.99),
        ("360M", "q4f16_1", 376.06),
        ("360M", "q4f32_1", 579.61),
    ],
)
def test_the_memory_is_what_webllm_publishes_for_smollm2(
    size: str, scheme: str, megabytes: float
) -> None:
    config, arrays = smollm2(size, scheme)
    text = app_config("m", config, SCHEMES[scheme], arrays, None, None)
    assert json.loads(text)["model_list"][0]["vram_required_MB"] == pytest.approx(
        megabytes, abs=0.01
    )


def smollm2(size: str, scheme: str) -> tuple[DecoderConfig, list[StoredArray]]:
    from export.targets import Target

    hidden, intermediate, layers, heads, kv = {
        "135M": (576, 1536, 30, 9, 3),
        "360M": (960, 2560, 32, 15, 5),
    }[size]
    config, parameters = read_config(
        tiny_config(
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv,
            vocab_size=49152,
            max_position_embeddings=8192,
        )
    )
    targets = [Target(p.name, (p,), p.shape) for p in parameters]
    return config, [array for t in targets for array in stored_arrays(t, SCHEMES[scheme])]


def test_a_library_that_fits_lies_beside_the_weights(
    plain: tuple[Path, Artifact], library: Path, tmp_path: Path
) -> None:
    artifact = export_tiny(plain[0], "mlc", "q4f16_1", tmp_path, model_lib=library)
    copied = artifact.path / "llama-0M-q4f16_1-webgpu.wasm"
    assert copied.read_bytes() == library.read_bytes()
    record = record_of(artifact)
    assert record["model_lib"] == f"llama-0M-q4f16_1-MLC/resolve/main/{copied.name}"
    # 3 MiB is what its greediest function takes.
    without = record_of(plain[1])["vram_required_MB"] - 256 * (4 * 160 + 64) * 2 / 2**20
    assert record["vram_required_MB"] == pytest.approx(without + 3, abs=0.011)
    assert {item.path for item in artifact.manifest.outputs} == {
        copied.name,
        *(item.path for item in plain[1].manifest.outputs),
    }


def test_a_url_makes_model_and_library_absolute(
    plain: tuple[Path, Artifact], library: Path, tmp_path: Path
) -> None:
    url = "https://huggingface.co/me/tiny-q4f16_1-MLC"
    artifact = export_tiny(plain[0], "mlc", "q4f16_1", tmp_path, model_lib=library, model_url=url)
    record = record_of(artifact)
    assert record["model"] == url
    assert record["model_lib"] == f"{url}/resolve/main/llama-0M-q4f16_1-webgpu.wasm"
    with pytest.raises(InputError, match="--model-url"):
        FORMAT.variant("q4f16_1", model_url="me/tiny")


def first(facts: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(item for item in facts["params"] if item["name"].endswith(kind))


Change = Callable[[dict[str, Any]], Any]
CHANGES: list[tuple[str, Change]] = [
    ("quantization = q4f32_1", lambda facts: facts.update(quantization="q4f32_1")),
    ("model_type = qwen2", lambda facts: facts.update(model_type="qwen2")),
    ("sliding_window_size = 64", lambda facts: facts.update(sliding_window_size=64)),
    ("context of 257", lambda facts: facts.update(context_window_size=257)),
    (r"q_weight = uint32 \[9, 8\]", lambda facts: first(facts, "q_weight").update(shape=[9, 8])),
    (r"q_scale = float32", lambda facts: first(facts, "q_scale").update(dtype="float32")),
    (r"model\.norm\.weight = nothing", lambda facts: facts["params"].pop()),
    (
        r"lm_head\.weight = float16 \[384, 64\], the model has nothing",
        lambda facts: facts["params"].append(
            {"name": "lm_head.weight", "shape": ["vocab_size", 64], "dtype": "float16"}
        ),
    ),
]


@pytest.mark.parametrize(("message", "change"), CHANGES, ids=[message for message, _ in CHANGES])
def test_a_library_for_other_weights_is_refused(
    message: str, change: Change, library: Path, facts: dict[str, Any]
) -> None:
    config, arrays = tiny_arrays()
    read = compiled_for(library.read_bytes())
    check_compiled_for(read, config, "q4f16_1", arrays, "x.wasm")
    stated = json.loads(json.dumps(facts))
    change(stated)
    with pytest.raises(InputError, match=rf"^x\.wasm: compiled for .*{message}"):
        check_compiled_for(replace(read, metadata=stated), config, "q4f16_1", arrays, "x.wasm")


@pytest.mark.parametrize(
    ("argument", "value", "fact"),
    [
        ("theta", 10000, "position_embedding_base = 10000, the model has 100000"),
        # TVM compiles a fraction into code, where it cannot be read.
        ("theta", 10000.5, "what this model library was compiled for cannot be read"),
        ("heads", 8, "num_attention_heads = 8"),
        ("kv_heads", 4, "num_key_value_heads = 4"),
        ("head_dim", 32, "head_dim = 32"),
    ],
)
def test_a_library_for_another_rotary_base_or_other_heads_is_refused(
    facts: dict[str, Any], argument: str, value: float, fact: str
) -> None:
    pytest.importorskip("tvm")
    config, arrays = tiny_arrays()
    numbers: dict[str, Any] = {**ATTENTION, argument: value}
    module = build_library(facts, **numbers)
    with pytest.raises(InputError, match=fact):
        check_compiled_for(compiled_for(module), config, "q4f16_1", arrays, "x.wasm")


def tiny_arrays() -> tuple[DecoderConfig, list[StoredArray]]:
    """What the tiny checkpoint's weights become in q4f16_1."""
    config, _ = read_config(tiny_config())
    h, rows = config.hidden, {"qkv_proj": 128, "o_proj": 64, "gate_up_proj": 320, "down_proj": 64}
    linears = {
        f"model.layers.{i}.{'self_attn' if name in ('qkv_proj', 'o_proj') else 'mlp'}.{name}": (
            rows[name],
            160 if name == "down_proj" else h,
        )
        for i in range(3)
        for name in rows
    }
    linears["model.embed_tokens"] = (config.vocab, h)
    norms = ["model.norm.weight"] + [
        f"model.layers.{i}.{name}_layernorm.weight"
        for i in range(3)
        for name in ("input", "post_attention")
    ]
    half, word = np.dtype(np.float16), np.dtype(np.uint32)
    arrays = [StoredArray(name, (h,), half) for name in norms]
    for name, (outs, ins) in linears.items():
        arrays.append(StoredArray(f"{name}.q_weight", (outs, ins // 8), word))
        arrays.append(StoredArray(f"{name}.q_scale", (outs, ins // 32), half))
    return config, arrays


def compiled_for(module: bytes) -> CompiledFor:
    read = read_model_library(module, "x.wasm")
    assert read.warning is None
    assert read.facts is not None
    return read.facts


def other_version(module: bytes, version: bytes = b"9.87") -> bytes:
    """The library as if a later TVM had compiled it."""
    known = struct.pack("<Q", 4) + b"0.14"
    assert module.count(known) == 1
    return module.replace(known, struct.pack("<Q", 4) + version)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_another_version_of_the_bytecode_is_a_warning(
    plain: tuple[Path, Artifact],
    library: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wasm = tmp_path / "later.wasm"
    wasm.write_bytes(other_version(library.read_bytes()))
    artifact = export_tiny(plain[0], "mlc", "q4f16_1", tmp_path / "later", model_lib=wasm)
    assert warned(caplog) == [
        "--model-lib: TVM bytecode 9.87 is not known here, only 0.14; this library was read as if"
        " it were"
    ]
    known = export_tiny(plain[0], "mlc", "q4f16_1", tmp_path / "known", model_lib=library)
    assert record_of(artifact) == record_of(known)


def test_what_can_be_read_in_another_version_is_still_compared(facts: dict[str, Any]) -> None:
    pytest.importorskip("tvm")
    config, arrays = tiny_arrays()
    module = other_version(build_library(facts, **{**ATTENTION, "theta": 10000}))
    read = read_model_library(module, "x.wasm").facts
    assert read is not None
    with pytest.raises(InputError, match="position_embedding_base = 10000"):
        check_compiled_for(read, config, "q4f16_1", arrays, "x.wasm")


def test_what_cannot_be_read_in_another_version_is_accepted_unchecked(
    plain: tuple[Path, Artifact],
    library: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As with a field more: the number of functions, after magic and version, is none."""
    later = other_version(library.read_bytes())
    at = later.index(b"9.87") + 4
    wasm = tmp_path / "later.wasm"
    wasm.write_bytes(later[:at] + b"\xff" * 8 + later[at + 8 :])
    artifact = export_tiny(plain[0], "mlc", "q4f16_1", tmp_path, model_lib=wasm)
    assert warned(caplog) == [
        "--model-lib: TVM bytecode 9.87 is not known here, only 0.14; this library cannot be read:"
        " accepted unchecked"
    ]
    assert (artifact.path / "llama-0M-q4f16_1-webgpu.wasm").read_bytes() == wasm.read_bytes()
    record, without = record_of(artifact), record_of(plain[1])
    assert record.pop("model_lib") == "llama-0M-q4f16_1-MLC/resolve/main/" + (
        "llama-0M-q4f16_1-webgpu.wasm"
    )
    assert record == without


def test_what_is_no_version_is_a_damaged_library(library: Path) -> None:
    with pytest.raises(InputError, match="unknown layout"):
        read_model_library(other_version(library.read_bytes(), b"0.\x0014"[:4]), "x.wasm")


def test_the_command_line_refuses_a_wrong_library_with_exit_2_and_writes_nothing(
    plain: tuple[Path, Artifact], facts: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("tvm")
    wasm = tmp_path / "wrong.wasm"
    wasm.write_bytes(build_library(facts, **{**ATTENTION, "theta": 10000}))
    args = ["--model", str(plain[0]), "-d", "q4f16_1", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*args, "--model-lib", str(wasm)])
    assert result.exit_code == 2
    assert "position_embedding_base = 10000, the model has 100000" in result.output
    assert len(result.output.splitlines()) == 1
    assert not list((tmp_path / "out").rglob("*.bin"))


def section(kind: int, content: bytes) -> bytes:
    return bytes([kind, len(content)]) + content


def test_memory_is_put_together_from_segments_with_gaps() -> None:
    """wasm-opt leaves out runs of zeros; a passive segment is in no memory."""
    segments = b"\x03" + b"\x00\x41\x02\x0b\x02ab" + b"\x01\x01x" + b"\x02\x00\x41\x06\x0b\x01c"
    module = b"\0asm\x01\0\0\0" + section(1, b"\x00") + section(11, segments)
    assert initial_memory(module, "x") == b"\0\0ab\0\0c"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", "not a WebAssembly module"),
        (b"\0asm\x01\0\0\0", "malformed WebAssembly"),
        (b"\0asm\x01\0\0\0" + section(11, b"\x01\x00\x41\x00\x0b\x05ab"), "malformed WebAssembly"),
        (b"\0asm\x01\0\0\0" + section(11, b"\x01\x00\x23\x00\x0b\x01a"), "malformed WebAssembly"),
        (
            b"\0asm\x01\0\0\0" + section(11, b"\x01\x00\x41\xff\xff\xff\xff\x07\x0b\x01a"),
            "malformed WebAssembly",
        ),
        (b"\0asm\x01\0\0\0" + section(11, b"\x01\x00\x41\x00\x0b\x02ab"), "no Relax executable"),
    ],
    ids=["zip", "no data", "truncated", "global offset", "huge offset", "other wasm"],
)
def test_a_file_that_is_no_model_library_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.wasm").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.wasm: .*{message}") as caught:
        FORMAT.variant("q4f16_1", model_lib=tmp_path / "x.wasm")
    assert "\n" not in str(caught.value)


def test_a_damaged_library_is_refused_or_read_never_a_crash(library: Path) -> None:
    data = library.read_bytes()
    begin = data.index(b"relax.VMExecutable")
    rng = np.random.default_rng(0)
    for place in (*rng.integers(begin, len(data), 300), begin + 30):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        try:
            read_model_library(bytes(damaged), "x.wasm")
        except InputError as error:
            assert str(error).startswith("x.wasm: ")
    for end in range(begin, len(data), 97):
        with pytest.raises(InputError):
            read_model_library(data[:end], "x.wasm")


def test_bfloat16_is_not_for_webllm(library: Path) -> None:
    with pytest.raises(InputError, match="no WebGPU has bfloat16"):
        FORMAT.variant("q0bf16", model_lib=library)
