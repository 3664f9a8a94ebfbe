"""The parts of a distillation: gradients, steps on a grid, what is kept, options and plans."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.goal import Goal, parse_goal
from runtimes.calibrate.decoder import Share, open_decoder
from runtimes.recover.distill import latents, loss
from runtimes.recover.distill.kept import DistillationFolder
from runtimes.recover.distill.wish import Distillation, checked_distillation
from runtimes.recover.grids import GRIDS
from runtimes.recover.rounding import Rounded
from runtimes.recover.scales import searched_scales
from runtimes.recover.text import Chunk
from tests.recovering import LEVELS, make_small, on_grid
from tests.tiny import FAMILIES, GEMMA3, OTHERS, PHI3

KINDS = {**FAMILIES, **OTHERS, "gemma3": GEMMA3, "phi3": PHI3}


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize(
    "family", ["tied", "biases", "qwen2 untied", "qwen3", "granite", "gemma3", "phi3"]
)
def test_the_gradient_is_that_of_the_kl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, tiles: bool
) -> None:
    """Beside PyTorch's own, through logits as a whole; rows of two lengths and a prefix.

    Near it, where a processor with tiles rounds what enters products.
    """
    monkeypatch.setattr(loss, "has_tiles", lambda: tiles)
    allowed = 0.25 if tiles else 1e-3
    torch.manual_seed(0)
    teacher = open_decoder(make_small(tmp_path / "model", **KINDS[family]), 1)
    student = open_decoder(tmp_path / "model", 1)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
    student.model.requires_grad_(True)
    parameters = list(student.model.parameters())
    chunks = [Chunk(tuple(range(9, 29)), 4), Chunk(tuple(range(40, 60)))]
    counted = torch.cat([torch.arange(20) >= 4, torch.arange(20) >= 0])
    ids = torch.tensor([chunk.ids for chunk in chunks])
    own, wanted = (d.model(input_ids=ids).logits.flatten(0, 1) for d in (student, teacher))
    own, wanted = own.log_softmax(-1), wanted.log_softmax(-1)
    expected = (wanted.exp() * (wanted - own)).sum(-1)[counted].sum()
    gradients = torch.autograd.grad(0.25 * expected, parameters)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    with loss.quick("cpu"):
        found = loss.pull(student, teacher, chunks, 0.25, 7)
    assert torch.get_float32_matmul_precision() == "highest"
    assert float(found) == pytest.approx(expected.item(), rel=0.05 if tiles else 1e-3)
    errors = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert parameter.grad is not None
        error = (parameter.grad - gradient).norm()
        assert error <= allowed * gradient.norm() + 1e-7
        errors.append(float(error / gradient.norm().clamp(min=1e-7)))
    assert not tiles or max(errors) > 1e-3  # it is rounded there


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "grid"),
    [("attention bias", "iq4_nl"), ("attention bias", "q5"), ("qwen3", "q4"), ("qwen3", "q8")],
)
def test_a_step_stays_on_the_grid(tmp_path: Path, family: str, grid: str) -> None:
    """Of a model with a head of its own, biases, norms of queries and keys."""
    teacher = open_decoder(make_small(tmp_path / "model", **FAMILIES[family]), 1)
    student = open_decoder(tmp_path / "model", 1)
    student.model.requires_grad_(True)
    made = {}
    for name, parameter in student.model.named_parameters():
        whole = Share(parameter, slice(None))
        if parameter.ndim == 1:
            halved = "norm" in name
            start = parameter.half().float() if halved else parameter.clone()
            made[name] = latents.Vector(whole, start, 0.0 if halved else None)
        else:
            scales = searched_scales(parameter.view(-1, 32), torch.ones(1, 32), GRIDS[grid])
            levels = GRIDS[grid].nearest(parameter.view(-1, 32) / scales[:, None])
            stored = Rounded(levels.view(parameter.shape), scales.view(len(parameter), -1).half())
            made[name] = latents.Matrix(whole, stored, GRIDS[grid], 100)
            assert torch.equal(parameter, stored.values)
    before = {name: parameter.clone() for name, parameter in student.model.named_parameters()}
    for number in range(1, 4):
        for latent in made.values():
            latent.gradient.zero_()
        loss.pull(student, teacher, [Chunk(tuple(range(9, 29)))], 0.05, 64)
        for latent in made.values():
            latent.update(latents.Stride(number, 20.0, 1.0))
    for name, parameter in student.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
        assert torch.equal(latents.values_of(made[name].stored()), parameter), name
        if parameter.ndim == 2:
            assert on_grid(parameter.numpy(), LEVELS[grid]), name
        elif "norm" in name:
            assert torch.equal(parameter, parameter.half().float()), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--minutes", "5"), "--minutes says how to distill; give --distill"),
        (("--device", "cpu"), "--device says how to distill; give --distill"),
        (("--distill", "--minutes", "0"), "--minutes"),
        (("--distill", "--minutes", "nan"), "--minutes"),
        (("--distill", "--minutes", "ten"), "--minutes"),
        (("--distill", "--device", "tpu"), "--device"),
        (("--distill", "--device", "cuda"), "--device cuda: PyTorch finds none"),
        (("--distill", "--device", "mps"), "--device mps: PyTorch finds none"),
    ],
)
def test_bad_options_are_one_line_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    arguments = ["-m", str(tmp_path), "--format", "any", "-o", str(tmp_path / "out"), *options]
    done = CliRunner().invoke(main, ["recover", *arguments])
    code, output = done.exit_code, done.output
    assert (code, output.count("\n")) == (2, 1), output
    assert message in output


def test_auto_takes_the_first_device_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"cuda": True, "mps": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there["mps"])
    for device in ("cuda", "mps"):
        assert checked_distillation(True, None, None) == Distillation(10.0, device)
        there[device] = False
    assert checked_distillation(True, 3, "auto") == Distillation(3, "cpu")
    assert checked_distillation(False, None, None) is None


def test_the_best_of_all_checkpoints_is_what_is_kept(tmp_path: Path) -> None:
    share = Share(torch.nn.Parameter(torch.zeros(2)), slice(None))
    latent = latents.Vector(share, torch.tensor([1.0, 2.0]), 0.0)
    groups, folder = {"tables": {"norm": latent}}, DistillationFolder(tmp_path)
    assert folder.best is None
    folder.save_best(0.5, groups)
    latent.load({**latent.state, "values": torch.tensor([3.00001, 4.0])})
    folder.save_best(0.25, groups)
    assert folder.best == 0.25
    (found,) = folder.best_values({"tables": ["norm"]})
    assert found["norm"].tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("text", "minutes"), [("10 min", 10.0), ("1.5 h", 90.0), ("30min", 30.0), ("0.5 min", 0.5)]
)
def test_a_plan_says_how_long(text: str, minutes: float) -> None:
    goal = parse_goal({"bits": 5.0, "distill": text}, "gguf", mixes=True)
    assert goal == Goal("gguf", bits=5.0, distill=minutes)
    assert goal.text == f'gguf, bits = 5.0, distill = "{minutes:g} min"'


@pytest.mark.parametrize("text", ["10", "ten min", "-1 min", "0 min", "900 h", "", 10, True, None])
def test_a_plan_that_does_not_is_refused(text: object) -> None:
    with pytest.raises(InputError, match="distill must be a time, such as"):
        parse_goal({"bits": 5.0, "distill": text}, "gguf", mixes=True)
