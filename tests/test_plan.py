"""A plan is checked before anything is exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeproof.errors import InputError
from export.__main__ import main
from export.formats import OURS, load_format
from export.plan import ModelRequest, VariantRequest, load_plan
from tests.tiny import make_checkpoint


def load(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "edgeproof.toml"
    path.write_text(text)
    return load_plan(path)


# Its runtime is not in the default set-up.
ON_REQUEST = {"mlx"}


def test_the_default_plan_covers_every_format_and_only_known_variants() -> None:
    plan = load_plan(None)
    assert plan.models == (ModelRequest("bundled"),)
    assert {variant.format for variant in plan.variants} == set(OURS) - ON_REQUEST
    for request in plan.variants:
        load_format(request.format).variant(request.dtype)


def test_the_default_plan_excuses_exactly_the_four_bit_variants() -> None:
    for request in load_plan(None).variants:
        variant = load_format(request.format).variant(request.dtype)
        assert request.allow_degraded == (variant.precision.value == "4-bit")


def test_the_default_plan_has_one_recovered_variant_per_format_of_one_text() -> None:
    plan = load_plan(None)
    recovered = [request for request in plan.variants if request.goal is not None]
    assert sorted(request.format for request in recovered) == sorted(set(OURS) - ON_REQUEST)
    assert len({request.goal.tokens for request in recovered if request.goal}) == 1
    # A model that no grid fits is exported as before.
    assert all(request.goal.optional for request in recovered if request.goal)
    # Three times the bundled 135M, and its stand-in in the shape of 360M.
    assert plan.recover_up_to == 400_000_000
    plain = plan.unrecovered.variants
    assert [request.goal for request in plain] == [None] * (len(plan.variants) - len(recovered))


def test_a_plan_lists_models_with_revisions_variants_and_gates(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        """
        models = ["bundled", { id = "org/name", revision = "v0.1" }, { id = "mine", name = "My-1" }]
        [[variant]]
        format = "gguf"
        dtype = ["f16", "q4_0"]
        allow-degraded = true
        [gates.8-bit]
        mean_kl = 0.5
        """,
    )
    assert plan.models == (
        ModelRequest("bundled"),
        ModelRequest("org/name", "v0.1"),
        ModelRequest("mine", name="My-1"),
    )
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
        ('models = [{ id = "m", name = "a b" }]\n' + VARIANT, "a model's name 'a b': give letters"),
        ('models = [{ id = "m", name = 3 }]\n' + VARIANT, "a model's name 3: give letters"),
        (
            'models = [{ id = "m", name = "My" }, { id = "n", name = "my" }]\n' + VARIANT,
            "two models have the name my",
        ),
        ('[[variant]]\ndtype = "f16"', "needs format"),
        (VARIANT + "[gates.8-bit]\nmean_kl = true", "must be a number"),
        (VARIANT + "[gates.8-bit]\nmean_kl = nan", "must be a number, not nan"),
        (VARIANT + "[gates.8-bit]\ntop1 = -inf", "must be a number, not -inf"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, text)
    assert "edgeproof.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_can_be_narrowed_to_formats() -> None:
    plan = load_plan(None)
    assert plan.only(()) == plan
    assert {item.format for item in plan.only(("gguf", "mlc")).variants} == {"gguf", "mlc"}
    with pytest.raises(InputError, match="--format tflite: the plan has no such variant"):
        plan.only(("gguf", "tflite"))


def test_a_missing_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        load_plan(tmp_path / "nowhere.toml")


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="onnx, gguf, mlc"):
        load_format("coreml")


def test_a_variant_takes_the_options_of_its_format(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        """
        [[variant]]
        format = "gguf"
        dtype = ["q4_0", "q4_1"]
        strict = true
        pure = true
        tensor-type = ["attn_v=q8_0", "ffn_.*=q5_0"]
        split-max-size = "2G"
        split-max-tensors = 9
        """,
    )
    gguf = load_format("gguf")
    for request, dtype in zip(plan.variants, ("q4_0", "q4_1"), strict=True):
        assert request.strict
        expected = gguf.variant(
            dtype,
            pure=True,
            tensor_type=("attn_v=q8_0", "ffn_.*=q5_0"),
            split_max_size="2G",
            split_max_tensors=9,
        )
        assert request.resolve() == (gguf, expected)
    (plain,) = load(tmp_path, VARIANT + "pure = false").variants
    assert plain.resolve()[1] == gguf.variant("f16")


def test_a_variant_may_be_made_by_another_engine(tmp_path: Path) -> None:
    table = '[[variant]]\nformat = "onnx"\ndtype = ["fp32", "fp16"]\nengine = '
    onnx = load_format("onnx")
    for engine in ("optimum", "direct"):
        requests = load(tmp_path, f'{table}"{engine}"').variants
        resolved = [request.resolve() for request in requests]
        assert all(form is onnx.engine(engine) for form, _ in resolved)
        assert [variant.name.endswith("-optimum") for _, variant in resolved] == [
            engine == "optimum"
        ] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VARIANT + "imatrx = true", "unknown key 'imatrx' in a gguf variant; known: .*imatrix"),
        (VARIANT.replace("gguf", "onnx") + "pure = true", "unknown key 'pure' in a onnx"),
        (VARIANT + 'pure = "x"', "'--pure' does not take a value"),
        (VARIANT + "split-max-size = true", "'--split-max-size' requires an argument"),
        (VARIANT + "split-max-tensors = 0", "0 is not in the range"),
        (VARIANT + 'imatrix = "gone.gguf"', "rounded without it"),
        (VARIANT.replace("f16", "q4_0") + 'imatrix = "gone.gguf"', "gone.gguf: cannot be read"),
        (VARIANT + 'tensor-type = "attn=q9"', "unknown type 'q9'"),
        (VARIANT + "strict = 1", "strict must be true or false"),
        (VARIANT.replace("f16", "f17"), "no dtype 'f17'"),
        (VARIANT.replace("gguf", "coreml"), "unknown format 'coreml'"),
        (VARIANT + 'engine = "optimum"', "gguf has no engine 'optimum'; choose from direct"),
        (
            VARIANT.replace("gguf", "onnx") + 'engine = "optimum"\ngraph = "portable"',
            "unknown key 'graph'",
        ),
    ],
)
def test_wrong_options_are_refused_before_anything_is_exported(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, text)
    assert "edgeproof.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_exports_with_options_and_names_the_fallback_it_refuses(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "m")
    table = VARIANT.replace("f16", "q4_k_m") + 'token-embedding-type = "f16"\n'
    outputs = []
    for more in ("", "strict = true"):
        (tmp_path / "p.toml").write_text(table + more)
        line = ["--plan", tmp_path / "p.toml", "-m", model, "-o", tmp_path / "out"]
        outputs.append(CliRunner().invoke(main, list(map(str, line))))
    assert [result.exit_code for result in outputs] == [0, 2]
    assert (tmp_path / "out" / "m" / "gguf" / "q4_k_m-token-embedding-f16").is_dir()
    assert "do not divide into 256" in outputs[1].output
