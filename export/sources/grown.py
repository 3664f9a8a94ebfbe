"""Stand-ins for larger models: the bundled real one, grown to their shape (see `growth`).

Real: the function, and so every reply; the tokenizer; each value. As in a model of that size: all
shapes, and with them sizes, memory, speed and which tensors fall back to another type. Not real:
that its size makes it better. No claim on a trained model of that size follows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgeproof.files.atomic import write_atomic
from export.sources.bundled import resolve_bundled
from export.sources.checkpoint_cache import cached
from export.sources.grown_shape import GrownShape
from export.sources.source import Source

SEED = "edgeproof-grown-1"
# Raise it when the grown bytes change.
GROWTH = 1
ORIGIN = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Grown:
    """A stand-in: its name, and the size label and shape of what it stands in for."""

    name: str
    size: str
    shape: GrownShape


# By what --model calls them.
GROWN = {
    # The published config.json of SmolLM-360M and SmolLM2-360M.
    "bundled-360m": Grown(
        "SmolLM2-135M-grown-360M-Instruct",
        "360M",
        GrownShape(960, 2560, 32, heads=15, kv_heads=5),
    ),
}


def resolve_grown(model: str) -> Source:
    """The grown checkpoint of that name, in the cache.

    Raises:
        InputError: the bundled model is not installed, or the cache is not writable.
    """
    bundled, grown = resolve_bundled(), GROWN[model]

    def write(folder: Path) -> str:
        from export.checkpoint import open_checkpoint
        from export.checkpoint.model_card import MODEL_CARD
        from export.sources.growth import grow

        grow(open_checkpoint(bundled.path), grown.shape, SEED, folder)
        write_atomic(folder / MODEL_CARD, _card(bundled.path, grown))
        return grown.name

    # The bundled checkpoint's folder is named after its content.
    recipe = [GROWTH, bundled.path.name, asdict(grown), SEED]
    made = cached(grown.name, recipe, write)
    return replace(bundled, path=made.path, label=grown.name, name=grown.name)


def _card(bundled: Path, grown: Grown) -> bytes:
    """README.md: what the bundled model's says, and plainly what this is."""
    import yaml

    from export.checkpoint.model_card import read_model_card

    said = (
        f"{ORIGIN.split('/')[1]} grown to the {grown.size} shape: a stand-in that computes the"
        f" same function, not a trained {grown.size} model"
    )
    facts = {
        **read_model_card(bundled),
        "base_model": ORIGIN,
        "description": said,
        "size_label": grown.size,
        "basename": grown.name.removesuffix(f"-{grown.size}-Instruct"),
        "finetune": "Instruct",
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---\n\n{said}.\n".encode()
