"""A plan is checked before anything is exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.errors import InputError
from export.formats import MODULES, load_format
from export.plan import ModelRequest, VariantRequest, load_plan


def load(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "edgeproof.toml"
    path.write_text(text)
    return load_plan(path)


def test_the_default_plan_covers_every_format_and_only_known_variants() -> None:
    plan = load_plan(None)
    assert plan.models == (ModelRequest("bundled"),)
    assert {variant.format for variant in plan.variants} == set(MODULES)
    for request in plan.variants:
        load_format(request.format).variant(request.dtype)


def test_the_default_plan_excuses_exactly_the_four_bit_variants() -> None:
    for request in load_plan(None).variants:
        variant = load_format(request.format).variant(request.dtype)
        assert request.allow_degraded == (variant.precision.value == "4-bit")


def test_a_plan_lists_models_with_revisions_variants_and_gates(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        """
        models = ["bundled", { id = "org/name", revision = "v0.1" }]
        [[variant]]
        format = "gguf"
        dtype = ["f16", "q4_0"]
        allow-degraded = true
        [gates.8-bit]
        mean_kl = 0.5
        """,
    )
    assert plan.models == (ModelRequest("bundled"), ModelRequest("org/name", "v0.1"))
    assert plan.variants == (
        VariantRequest("gguf", "f16", True),
        VariantRequest("gguf", "q4_0", True),
    )
    assert plan.gates == {"8-bit": {"mean_kl": 0.5}}


VARIANT = '[[variant]]\nformat = "gguf"\ndtype = "f16"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models = [", "not valid TOML"),
        ("", "variant is empty"),
        ("models = []\n" + VARIANT, "models is empty"),
        ("colour = 3\n" + VARIANT, "unknown key 'colour'"),
        (VARIANT + "degraded = true", "unknown key 'degraded'"),
        (VARIANT + "allow-degraded = 1", "true or false"),
        ("models = [3]\n" + VARIANT, "a model is a string"),
        ('[[variant]]\ndtype = "f16"', "needs format"),
        (VARIANT + "[gates.8-bit]\nmean_kl = true", "must be a number"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, text)
    assert "edgeproof.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        load_plan(tmp_path / "nowhere.toml")


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="onnx, gguf, mlc"):
        load_format("coreml")
