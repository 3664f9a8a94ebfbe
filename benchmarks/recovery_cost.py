"""What a recovery of a larger shape takes, from some of its layers.

`python -m benchmarks.recovery_cost --shape 360M --layers 2` makes checkpoints of one layer and of
so many more in that shape, with random weights, and runs the parts of a recovery on them in one
process and thread: sampled tokens, moments, scaling of channels, rounding to 4 bits; not the
comparison at the end.
What each layer takes beside embedding and head follows from the two, and so what all would: CPU
seconds and memory. Weights are random, text too: what they cost does not depend on them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import torch

from benchmarks.shapes import SHAPES, make_shape
from edgeproof.recovery_cost import GRADED
from runtimes.calibrate import moments
from runtimes.calibrate.decoder import Decoder, open_decoder, read_structure
from runtimes.calibrate.moments import Request, Sums
from runtimes.calibrate.sampling import sample
from runtimes.footprint import resident_mb
from runtimes.recover import stages
from runtimes.recover.run import LEAST_HELD, MOST_HELD
from runtimes.recover.stages import Original, Stages
from runtimes.recover.text import Chunk, Text

CHUNK, ROWS, SAMPLED = 256, 64, 24  # tokens; rows that are sampled together; tokens of each
GRID = "q4"
TEXTS = (8192, 40_960)  # the default plan's, and `edgeproof recover`'s
FLOAT = 4


@dataclass(frozen=True)
class Tokens:
    """CPU seconds of a token: sampled, read forward, and with gradients."""

    sampled: float
    plain: float
    graded: float

    def all_of(self, more: Tokens, layers: int, wanted: int, times: float) -> Tokens:
        """Those of `wanted` layers, and so many `times` what is beside them.

        These are of one layer, `more` of so many `layers` more.
        """

        def of(one: float, many: float) -> float:
            each = min(one, max(0.0, many - one) / layers)
            return wanted * each + times * (one - each)

        return Tokens(*map(of, vars(self).values(), vars(more).values()))

    def recovery(self, tokens: int, passes: int) -> float:
        """Text, with what is held out, and moments in so many passes."""
        held = min(MOST_HELD, max(LEAST_HELD, tokens // 4))
        read = GRADED * self.graded + (1 - GRADED) * self.plain
        return self.sampled * (tokens + held) + passes * read * tokens


@dataclass(frozen=True)
class Part:
    """CPU seconds of a layer, or of what is outside of layers."""

    scaling: float
    rounding: float


@click.command(help=__doc__)
@click.option("--shape", type=click.Choice(list(SHAPES)), default="360M", show_default=True)
@click.option("--layers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--tokens", type=click.IntRange(CHUNK), default=2 * CHUNK, show_default=True)
@click.option(
    "--rows", type=click.IntRange(512), help="Of the embedding; all others cost as much each."
)
@click.option("--only-memory", is_flag=True, help="Of moments, where most of it is needed.")
def main(shape: str, layers: int, tokens: int, rows: int | None, only_memory: bool) -> None:
    """Measure and print."""
    rows = rows or SHAPES[shape]["vocab_size"]
    text = _text(tokens)
    with tempfile.TemporaryDirectory(prefix="edgeproof-recovery-cost-") as temporary:
        folder = Path(temporary)
        first, second = (
            _made(folder / str(count), shape, count, rows) for count in (1, 1 + layers)
        )
        click.echo(
            f"{shape}: measured 1 and {1 + layers} of {SHAPES[shape]['num_hidden_layers']} layers,"
            f" {rows} of {SHAPES[shape]['vocab_size']} rows, on {tokens} tokens"
        )
        click.echo(_memory(first, second, shape, text))
        if not only_memory:
            _seconds_of_all(first, second, shape, text, folder / "stages")


def _memory(first: Original, second: Original, shape: str, text: Text) -> str:
    """What moments need: weights, sums of a group of layers, and what a backward pass keeps."""
    read = stages.batches(text.chunks)[:1]
    kept = []
    for original in (first, second):
        decoder = open_decoder(original.path, 1)
        with _Kept(decoder) as found:
            _measure(decoder, read, 1)
        kept.append(found.bytes)
    layers, wanted = second.config.layers, SHAPES[shape]["num_hidden_layers"]
    each = (kept[1] - kept[0]) / (layers - 1)
    of_layer, together = moments.layer_bytes(decoder), stages.together_of(decoder)
    sums, here = min(wanted, together) * of_layer, min(layers, together) * of_layer
    weights, passed = FLOAT * _size(second, shape), kept[1] + (wanted - layers) * each
    own = FLOAT * sum(p.size for p in second.parameters) + here + kept[1]
    rest = max(0.0, 1e6 * (resident_mb("VmHWM") or 0.0) - own)
    return (
        f"memory: {(rest + weights + sums + passed) / 1e9:.1f} GB: weights {weights / 1e9:.1f},"
        f" moments of {min(wanted, together)} layers {sums / 1e9:.1f}, a backward pass"
        f" {passed / 1e9:.1f}"
    )


def _size(original: Original, shape: str) -> int:
    """Weights of the whole shape."""
    layer, tables = (sum(p.size for p in original.of_layer(place)) for place in (0, None))
    times = SHAPES[shape]["vocab_size"] / original.config.vocab
    return SHAPES[shape]["num_hidden_layers"] * layer + round(times * tables)


class _Kept:
    """Bytes that a forward pass keeps for the backward one beside weights, each tensor once."""

    def __init__(self, decoder: Decoder) -> None:
        self._found: dict[int, int] = {}
        self._weights = {p.untyped_storage().data_ptr() for p in decoder.model.parameters()}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        """Of all."""
        return sum(self._found.values())

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._found[storage.data_ptr()] = storage.nbytes()
        return tensor

    def __enter__(self) -> _Kept:
        self._hooks.__enter__()
        return self

    def __exit__(self, *ended: object) -> None:
        self._hooks.__exit__(*ended)


def _seconds_of_all(
    first: Original, second: Original, shape: str, text: Text, folder: Path
) -> None:
    """Measure each part, and print what all layers would take."""
    wanted, layers = SHAPES[shape]["num_hidden_layers"], second.config.layers
    times = SHAPES[shape]["vocab_size"] / second.config.vocab
    one = _tokens(open_decoder(first.path, 1), text)
    decoder = open_decoder(second.path, 1)
    every = one.all_of(_tokens(decoder, text), layers - 1, wanted, times)
    passes = -(-wanted // stages.together_of(decoder))
    stage = Stages(folder, second, text)
    stage.measure(decoder, lambda seconds, what: None)
    del decoder
    layer, part = _part(stage, 0), _part(stage, None)
    tables = Part(times * part.scaling, times * part.rounding)
    click.echo(
        f"a token, all layers: sampled {every.sampled:.4f}, forward {every.plain:.4f}, with"
        f" gradients {every.graded:.4f} CPU s\n"
        f"scaling channels: a layer {layer.scaling:.1f}, tables {tables.scaling:.1f} CPU s\n"
        f"rounding to 4 bits: a layer {layer.rounding:.1f}, tables {tables.rounding:.1f} CPU s"
    )
    for length in TEXTS:
        scaling = wanted * layer.scaling + tables.scaling
        rounding = wanted * layer.rounding + tables.rounding
        whole = every.recovery(length, passes) + scaling + rounding
        click.echo(
            f"recovery of {length} tokens: {whole:.0f} CPU s (scaling {scaling:.0f}, rounding"
            f" {rounding:.0f}), the text read {passes} times for moments"
        )


def _made(folder: Path, shape: str, layers: int, rows: int) -> Original:
    make_shape(folder, "llama", shape, sparse=False, num_hidden_layers=layers, vocab_size=rows)
    return Original(folder, *read_structure(folder))


def _text(tokens: int) -> Text:
    """Chunks of random tokens that every vocabulary has."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(300, (-(-tokens // CHUNK), CHUNK), generator=draw).tolist()
    return Text(tuple(Chunk(tuple(row)) for row in rows))


def _tokens(decoder: Decoder, text: Text) -> Tokens:
    sampled = _seconds(lambda: sample(decoder, [1], ROWS, 1 + SAMPLED, 0)) / (ROWS * SAMPLED)
    read = stages.batches(text.chunks)
    plain, graded = (
        _seconds(partial(_measure, decoder, read, count)) / text.tokens for count in (0, len(read))
    )
    return Tokens(sampled, plain, graded)


def _measure(decoder: Decoder, read: Sequence[torch.Tensor], graded: int) -> None:
    layers = range(decoder.config.layers)
    moments.measure(decoder, read, Request(layers, True, graded), Sums(), lambda sums: None)


def _part(stage: Stages, place: int | None) -> Part:
    """Matrices to 4 bits each."""
    scaling = _seconds(lambda: stage.folded(place))
    folded = stage.folded(place)
    names = list(folded.errors)
    return Part(scaling, _seconds(lambda: [stage.rounded(n, GRID, folded) for n in names]))


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
