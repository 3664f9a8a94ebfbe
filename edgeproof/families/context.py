"""How far a decoder reaches in a runtime that has not everything which changes with the length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.registry import family
from edgeproof.families.rope import LongScaling
from edgeproof.families.structure import Layer, plain_structure


def bounded(
    config: DecoderConfig, *, windows: bool = False, switches: bool = False
) -> DecoderConfig:
    """The decoder with the context in which a runtime computes the same.

    In one without sliding windows that is as long as the shortest, within which every token sees
    all before it. One that does not switch between the two tables of `LongScaling` has the short
    one, and ends where transformers takes the other.
    """
    limits = [
        limit for layer in config.structure.layers for limit in _limits(layer, windows, switches)
    ]
    longest = min((config.max_positions, *limits))
    if windows:
        return replace(config, max_positions=longest)
    layers = tuple(replace(layer, window=None) for layer in config.structure.layers)
    structure = replace(config.structure, layers=layers)
    return replace(config, max_positions=longest, structure=structure)


def in_llama_cpp(config: DecoderConfig) -> DecoderConfig:
    """The decoder as llama.cpp's graph of its family has it: some have windows of their own."""
    architecture = family(config.family).llama_cpp
    if architecture is None:
        return config
    sizes = {"embedding_length": config.hidden, "attention.head_count": config.heads}
    plain = plain_structure(config.layers, config.head_dim, config.rope)
    graph = architecture.structure(plain, {**sizes, **architecture.keys(config)})
    return bounded(config, windows=any(layer.window for layer in graph.layers), switches=True)


def _limits(layer: Layer, windows: bool, switches: bool) -> Iterator[int]:
    if layer.window is not None and not windows:
        yield layer.window
    scaling = layer.rope and layer.rope.scaling
    if isinstance(scaling, LongScaling) and not switches:
        yield scaling.original_positions
