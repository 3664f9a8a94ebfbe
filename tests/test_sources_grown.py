"""A grown decoder computes the old one's function, in a larger network of mixed channels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeproof.errors import InputError
from edgeproof.families import Role
from export.checkpoint import Checkpoint, open_checkpoint
from export.checkpoint.model_card import read_model_card
from export.sources import resolve
from export.sources.grown import GROWN
from export.sources.grown_shape import GrownShape
from export.sources.growth import grow, layer_sources
from runtimes.registry import open_reference
from tests import tiny, tiny_gguf
from tests.measured import measured
from tests.test_sources_bundled import install_package
from tests.tolerance import REORDERED_FLOAT32, relative_error

pytestmark = pytest.mark.numbers

ROOT = Path(__file__).parents[1]
SHAPE = GrownShape(96, 256, 5, heads=6, kv_heads=3)
IDS = [1, 40, 7, 300, 12, 12, 99, 5]


def grown(folder: Path, shape: GrownShape = SHAPE, **changes: Any) -> tuple[Path, Path]:
    old = tiny.make_checkpoint(folder / "old", **changes)
    new = folder / "new"
    new.mkdir()
    grow(open_checkpoint(old), shape, "seed", new)
    return old, new


def tensors(folder: Path) -> dict[str, np.ndarray]:
    checkpoint: Checkpoint = open_checkpoint(folder)
    return {p.name: checkpoint._where[p.name].tensor(p.name) for p in checkpoint.parameters}


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    return open_reference(folder, 1).logits(ids).astype(np.float64)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_grown_decoder_of_any_family_has_the_logits_of_the_old_one(
    tmp_path: Path, family: str
) -> None:
    changes = tiny.FAMILIES[family]
    kv_heads = 6 if changes.get("num_key_value_heads") == 4 else 3
    shape = GrownShape(96, 256, 5, heads=6, kv_heads=kv_heads)
    old, new = grown(tmp_path, shape, **changes)
    assert relative_error(logits(new, IDS), logits(old, IDS)) < REORDERED_FLOAT32


def test_growing_to_the_same_shape_only_reorders(tmp_path: Path) -> None:
    old, new = grown(tmp_path, GrownShape(64, 160, 3, heads=4, kv_heads=2))
    before, after = tensors(old), tensors(new)
    for name in before:
        assert np.array_equal(np.sort(before[name], None), np.sort(after[name], None)), name
    assert not np.array_equal(before["model.norm.weight"], after["model.norm.weight"])


def test_every_block_of_a_row_mixes_zeros_and_values(tmp_path: Path) -> None:
    _, new = grown(tmp_path)
    values = tensors(new)
    for role in (Role.EMBEDDING, Role.QUERY, Role.GATE, Role.DOWN):
        names = [p.name for p in open_checkpoint(new).parameters if p.role is role]
        blocks = np.concatenate([values[name].reshape(-1, 32) for name in names])
        zeros = (blocks == 0).sum(1)
        used = zeros[zeros < 32]  # a row of zeros is a channel more
        assert len(used)
        assert used.min() > 0, role


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    old = open_checkpoint(tiny.make_checkpoint(tmp_path / "old"))
    files = {}
    for name, seed in (("a", "seed"), ("b", "seed"), ("c", "other")):
        (tmp_path / name).mkdir()
        grow(old, SHAPE, seed, tmp_path / name)
        files[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert files["a"] == files["b"] != files["c"]


@pytest.mark.parametrize(("old", "new"), [(30, 32), (3, 5), (3, 3), (1, 8), (7, 9)])
def test_layers_keep_their_order_and_the_silent_ones_are_spread(old: int, new: int) -> None:
    sources = layer_sources(old, new)
    assert [layer for layer, silent in sources if not silent] == list(range(old))
    assert len(sources) == new
    silent = [at for at, (_, more) in enumerate(sources) if more]
    if (old, new) == (30, 32):
        assert silent == [8, 24]
        assert [sources[at][0] for at in silent] == [7, 22]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (GrownShape(32, 256, 5, heads=6, kv_heads=3), r"hidden is 64, more than the 32"),
        (GrownShape(96, 256, 2, heads=6, kv_heads=3), r"layers is 3, more than the 2"),
        (
            GrownShape(96, 256, 5, heads=6, kv_heads=2),
            r"4 heads over 2 key/value heads cannot become 6",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, shape: GrownShape, message: str) -> None:
    with pytest.raises(InputError, match=message):
        grown(tmp_path, shape)


def test_a_nan_is_refused(tmp_path: Path) -> None:
    old = tiny.make_checkpoint(tmp_path / "old")
    values = tensors(old)
    values = {name: np.array(value) for name, value in values.items()}
    values["model.layers.1.mlp.down_proj.weight"][3, 4] = np.nan
    tiny.write_weights(old, values)
    (tmp_path / "new").mkdir()
    with pytest.raises(InputError, match=r"down_proj.*NaN"):
        grow(open_checkpoint(old), SHAPE, "seed", tmp_path / "new")


def test_the_stand_in_is_made_once_and_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 384}
    install_package(site, tiny_gguf.write(tmp_path, "Q4_1", **heads).path)
    monkeypatch.syspath_prepend(str(site))
    stand_in = GROWN["bundled-360m"]
    source = resolve("bundled-360m")
    assert source.label == source.name == stand_in.name == "SmolLM2-135M-grown-360M-Instruct"
    checkpoint = open_checkpoint(source.path)
    assert (checkpoint.config.hidden, checkpoint.config.layers) == (960, 32)
    assert "not a trained 360M" in read_model_card(source.path)["description"]
    warm = f"""
import sys
sys.path.insert(0, {str(site)!r})
from export.sources import resolve
assert str(resolve("bundled-360m").path) == {str(source.path)!r}
heavy = {{"numpy", "gguf", "tokenizers", "yaml"}}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", warm], cwd=ROOT, check=True)


@pytest.mark.slow
def test_the_real_model_grown_to_360m_has_the_same_logits_in_little_memory(tmp_path: Path) -> None:
    source = resolve("bundled-360m")
    checkpoint = open_checkpoint(source.path)
    published = GrownShape(960, 2560, 32, heads=15, kv_heads=5)
    c = checkpoint.config
    assert GrownShape(c.hidden, c.intermediate, c.layers, c.heads, c.kv_heads) == published
    assert (c.head_dim, c.vocab, c.tied, checkpoint.parameter_count) == (64, 49152, True, 361821120)
    ids = [1, 4093, 198, 504, 3575, 282, 4649, 314, 2, 198, 1, 520, 9531, 198, 504, 3575]
    expected = logits(resolve("bundled").path, ids)
    assert relative_error(logits(source.path, ids), expected) < REORDERED_FLOAT32
    code = (
        "import sys; from pathlib import Path; from export.checkpoint import open_checkpoint;"
        " from export.sources.grown import GROWN; from export.sources.growth import grow;"
        " grow(open_checkpoint(Path(sys.argv[1])), GROWN['bundled-360m'].shape, 's',"
        " Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, resolve("bundled").path, tmp_path]
    cost = measured(command, ROOT, dict(os.environ))
    (tmp_path / "model.safetensors").unlink()  # pytest would keep 1.4 GB
    assert cost.peak_mb < 250
