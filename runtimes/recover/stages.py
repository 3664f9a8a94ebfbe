"""The stages of a recovery, each kept in the cache as soon as it is done.

Whatever a stage gives depends on nothing but the checkpoint, the text, the recipe, the libraries
and the number of threads, all of which name its folder: killed at any moment and begun again, a
recovery takes what is there and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path

import torch
from safetensors import safe_open

from edgeproof.checkpoints.weight_files import weight_files
from edgeproof.families import DecoderConfig, Parameter, Role, rows_held
from edgeproof.files.atomic import TEMPORARY
from edgeproof.files.cache import cache_folder, usable
from edgeproof.recovery_cost import GRADED, Costs
from runtimes.calibrate import moments as calibrate
from runtimes.calibrate.decoder import MATRICES, Decoder
from runtimes.calibrate.moments import Request, Sums
from runtimes.recover import fold, rounding, store
from runtimes.recover.fold import Fold, Folded
from runtimes.recover.grids import GRIDS
from runtimes.recover.rounding import Rounded
from runtimes.recover.side_by_side import Check, side_by_side, unchecked
from runtimes.recover.text import Chunk, Text

RECIPE_VERSION = 2
BATCH_ROWS = 2  # of 256 tokens: what a backward pass keeps is then below a gigabyte for the 135M
KEEP_EVERY = 120.0  # seconds between two states of the sums on the disk
LEAST_GROUP_BYTES = 1_500_000_000
COPIES = 5  # of a layer's weights and moments, while it is rounded
TABLES = "tables"
WEIGHTS, MOMENTS, ERRORS = "weights/", "moments/", "errors/"

# Seconds of work, and what is being done.
Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Original:
    """A checkpoint on the disk; weights are read one by one."""

    path: Path
    config: DecoderConfig
    parameters: tuple[Parameter, ...]

    def of_layer(self, layer: int | None) -> list[Parameter]:
        """The parameters of a layer; None: those outside all layers."""
        return [p for p in self.parameters if p.layer == layer]

    def weights(self, wanted: Sequence[Parameter]) -> dict[str, torch.Tensor]:
        """Their values in float32."""
        rows = rows_held(self.parameters)
        found: dict[str, torch.Tensor] = {}
        for path in weight_files(self.path).paths:
            with safe_open(path, "pt") as file:
                there = set(file.keys())
                for p in (p for p in wanted if p.holder in there):
                    found[p.name] = file.get_slice(p.holder)[rows[p.name]].float().clone()
        return found


def versions() -> dict[str, str]:
    """Of what computes: the result's bytes depend on them."""
    return {
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def stages_folder(digest: str, text: Text, threads: int) -> Path:
    """Where what follows from a checkpoint and a text is kept."""
    recipe = {
        "recipe": RECIPE_VERSION,
        "checkpoint": digest,
        "text": text.sha256,
        "threads": threads,
        "versions": versions(),
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return usable(cache_folder() / "recover" / key)


def batches(chunks: Sequence[Chunk]) -> list[torch.Tensor]:
    """Neighbouring chunks of equal length together, in order: [rows, time]."""
    groups: list[list[Chunk]] = []
    for chunk in chunks:
        last = groups[-1] if groups else []
        if last and len(last) < BATCH_ROWS and len(last[0].ids) == len(chunk.ids):
            last.append(chunk)
        else:
            groups.append([chunk])
    return [torch.tensor([chunk.ids for chunk in group]) for group in groups]


@dataclass(frozen=True)
class Stages:
    """What is made of a checkpoint and a text, in a folder of the cache."""

    folder: Path
    original: Original
    text: Text

    @property
    def missing_layers(self) -> list[int]:
        """Layers whose moments are not there yet."""
        layers = range(self.original.config.layers)
        return [layer for layer in layers if not self._has_moments(layer)]

    @property
    def measured(self) -> bool:
        """Whether all moments are there."""
        return not self.missing_layers and self._has_moments(TABLES)

    @cached_property
    def _costs(self) -> Costs:
        return Costs.of(p.shape for p in self.original.parameters)

    def begin(self) -> None:
        """Remove what a killed run was writing; the caller has the folder to itself."""
        for left in self.folder.rglob(f"{TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)

    def measure(self, decoder: Decoder, tell: Tell) -> None:
        """Measure all moments, in groups of layers whose sums fit; `tell` of tokens."""
        together = together_of(decoder)
        tables = not self._has_moments(TABLES)
        while missing := self.missing_layers:
            group = range(missing[0], min(missing[0] + together, self.original.config.layers))
            self._measure(decoder, group, tables, tell)
            tables = False
        if tables:
            self._measure(decoder, range(0), True, tell)

    def _measure(self, decoder: Decoder, layers: range, tables: bool, tell: Tell) -> None:
        partial = self.folder / f"sums-{layers.start}-{layers.stop}-{int(tables)}.safetensors"
        found = store.load(partial)
        sums = Sums() if found is None else Sums.of_state(found)
        read = batches(self.text.chunks)
        request = Request(layers, tables, max(1, round(len(read) * GRADED)))
        last = time.monotonic()

        def after(now: Sums) -> None:
            nonlocal last
            graded = now.batches <= request.graded
            cost = self._costs.graded_token if graded else self._costs.plain_token
            seconds = cost * read[now.batches - 1].numel()
            tell(seconds, f"measuring, text {now.batches} of {len(read)}")
            if time.monotonic() - last >= KEEP_EVERY:
                store.save(partial, now.state())
                last = time.monotonic()

        calibrate.measure(decoder, read, request, sums, after)
        for layer in layers:
            store.save(self._moments(layer), calibrate.layer_moments(decoder, sums, layer))
        if tables:
            store.save(self._moments(TABLES), calibrate.table_moments(decoder, sums))
        partial.unlink(missing_ok=True)

    def folded(self, layer: int | None) -> Folded:
        """A layer's weights, folded, and the moments of their inputs; None: of the tables."""
        place = TABLES if layer is None else layer
        if (kept := store.load(self._folded(place))) is not None:
            return _unpacked(kept)
        moments = store.load(self._moments(place))
        assert moments is not None, "moments are measured first"
        parameters = self.original.of_layer(layer)
        made = self._fold(layer, parameters, self.original.weights(parameters), moments)
        store.save(self._folded(place), _packed(made))
        self._moments(place).unlink()
        return made

    def _fold(
        self,
        layer: int | None,
        parameters: Sequence[Parameter],
        weights: dict[str, torch.Tensor],
        moments: dict[str, torch.Tensor],
    ) -> Folded:
        config = self.original.config
        if layer is not None:
            return fold.fold(config, parameters, weights, moments, fold.folds(config))
        shares = self._shares()
        tables = [Fold(None, (Role.EMBEDDING,))]
        if not config.tied:
            tables.append(Fold(Role.FINAL_NORM, (Role.HEAD,)))
        return fold.fold(config, parameters, weights, moments, tables, shares)

    def _shares(self) -> torch.Tensor:
        """How often each token is read: about as often as it is predicted."""
        ids = torch.cat([torch.tensor(chunk.ids) for chunk in self.text.chunks])
        counts = torch.bincount(ids, minlength=self.original.config.vocab).float()
        return counts / counts.sum()

    def rounded(self, name: str, grid: str, folded: Folded, check: Check = unchecked) -> Rounded:
        """A matrix on a grid."""
        path = self._rounded(name, grid)
        if (kept := store.load(path)) is not None:
            return Rounded(kept["levels"], kept["scales"])
        weights, moment = folded.weights[name], folded.moments[name]
        made = rounding.round_matrix(weights, moment, GRIDS[grid], check)
        store.save(path, {"levels": made.levels, "scales": made.scales})
        return made

    def fold_all(self, threads: int) -> Iterator[tuple[int | None, dict[str, float]]]:
        """Fold every layer that is not folded yet; a layer, and its errors, as they are known."""
        layers = self.layers

        def errors(layer: int | None, check: Check) -> dict[str, float]:
            check()
            return self.folded(layer).errors

        tasks = [partial(errors, layer) for layer in layers]
        for number, found in side_by_side(tasks, self._together(threads)):
            yield layers[number], found

    def round_all(self, grids: Mapping[str, str], threads: int) -> Iterator[list[str]]:
        """Round every matrix that is not on its grid yet; a layer's, when they are."""

        def missing(layer: int | None) -> list[str]:
            names = [p.name for p in self.original.of_layer(layer) if p.name in grids]
            return [name for name in names if not self._rounded(name, grids[name]).exists()]

        def made(layer: int | None, names: list[str], check: Check) -> list[str]:
            check()
            folded = self.folded(layer)
            for name in names:
                self.rounded(name, grids[name], folded, check)
            return names

        left = [(layer, names) for layer in self.layers if (names := missing(layer))]
        tasks = [partial(made, layer, names) for layer, names in left]
        for _, names in side_by_side(tasks, self._together(threads)):
            yield names

    @property
    def layers(self) -> list[int | None]:
        """All parts of the model: what is outside its layers first, since it takes longest."""
        return [None, *range(self.original.config.layers)]

    def _together(self, threads: int) -> int:
        """How many layers are worked on at a time."""
        matrices = [p for p in self.original.of_layer(0) if p.role in MATRICES]
        values = sum(p.size + p.shape[1] ** 2 for p in matrices)
        return max(1, min(threads, _room() // (COPIES * calibrate.FLOAT_BYTES * values)))

    def has_folded(self, layer: int | None) -> bool:
        """Whether a layer is folded already."""
        return self._folded(TABLES if layer is None else layer).exists()

    def has_rounded(self, name: str, grid: str) -> bool:
        """Whether a matrix on a grid is there already."""
        return self._rounded(name, grid).exists()

    def _has_moments(self, layer: int | str) -> bool:
        return self._folded(layer).exists() or self._moments(layer).exists()

    def _moments(self, layer: int | str) -> Path:
        return self.folder / "moments" / f"{layer}.safetensors"

    def _folded(self, layer: int | str) -> Path:
        return self.folder / "folded" / f"{layer}.safetensors"

    def _rounded(self, name: str, grid: str) -> Path:
        return self.folder / "rounded" / f"{name}.{grid}.safetensors"


def _packed(folded: Folded) -> dict[str, torch.Tensor]:
    content = {f"{WEIGHTS}{name}": value for name, value in folded.weights.items()}
    content |= {f"{MOMENTS}{name}": value for name, value in folded.moments.items()}
    for name, error in folded.errors.items():
        content[f"{ERRORS}{name}"] = torch.tensor(error, dtype=torch.float64)
    return content


def _unpacked(content: Mapping[str, torch.Tensor]) -> Folded:
    def part(kind: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(kind): v for k, v in content.items() if k.startswith(kind)}

    errors = {name: float(value) for name, value in part(ERRORS).items()}
    return Folded(part(WEIGHTS), part(MOMENTS), errors)


def together_of(decoder: Decoder) -> int:
    """How many layers' moments are measured at a time; the text is read for each such group."""
    return max(1, _room() // calibrate.layer_bytes(decoder))


def _room() -> int:
    """Bytes that moments, or layers that are worked on, may take."""
    return max(LEAST_GROUP_BYTES, _physical_memory() // 4)


def _physical_memory() -> int:
    """Bytes; 0 where Python cannot tell."""
    if sys.platform == "win32":
        return 0
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
