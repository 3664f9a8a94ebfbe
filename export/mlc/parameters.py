"""MLC's parameters of a decoder: fused projections, in the order mlc_llm converts them.

Source: mlc_llm `loader/standard_loader.py` (fusions) and `loader/huggingface_loader.py`
(`_loading_order`).
"""

from __future__ import annotations

from collections import defaultdict

from edgeproof.families import Parameter, family
from export.checkpoint import Checkpoint
from export.checkpoint.known_names import MODEL
from export.mlc.model_config import architecture_of
from export.targets import Target, check_bound, stack_rows, with_norm_offset


def mlc_targets(checkpoint: Checkpoint) -> list[Target]:
    """Every MLC parameter, in the order in which its first component is loaded.

    Raises:
        InputError: a parameter of the checkpoint would be dropped or used twice.
    """
    config = checkpoint.config
    modules = architecture_of(config).modules(family(config.family).names, config.structure)
    members: dict[str, list[Parameter]] = defaultdict(list)
    for parameter in checkpoint.parameters:
        module = modules[parameter.role].format(layer=parameter.layer)
        members[f"{module}.{parameter.name.rpartition('.')[2]}"].append(parameter)
    targets = [
        with_norm_offset(_target(name, sources), config.structure)
        for name, sources in members.items()
    ]
    check_bound(targets, checkpoint.parameters)
    position = {name: number for number, name in enumerate(_loading_order(checkpoint))}
    return sorted(targets, key=lambda t: min(position[source.name] for source in t.sources))


def _target(name: str, sources: list[Parameter]) -> Target:
    """Sources are in forward order, which is that of fused rows."""
    if len(sources) == 1:
        return Target(name, (sources[0],), sources[0].shape)
    shape = (sum(source.shape[0] for source in sources), *sources[0].shape[1:])
    return Target(name, tuple(sources), shape, stack_rows)


def _loading_order(checkpoint: Checkpoint) -> list[str]:
    """One file: by name (safetensors' `keys()` sorts). Shards: as the index lists them, by file.

    Names that it lacks come last: transformers loads whole shards.
    """
    placed = checkpoint.weight_map
    if not placed:
        return sorted(checkpoint.stored_order)
    known = {parameter.name for parameter in checkpoint.parameters}
    files: dict[str, list[str]] = defaultdict(list)
    for name, file in placed.items():
        files[file].append(name if name in known else MODEL + name)
    listed = [name for names in files.values() for name in names]
    return list(dict.fromkeys((*listed, *checkpoint.stored_order)))
