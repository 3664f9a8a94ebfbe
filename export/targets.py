"""How a format binds its tensors to the checkpoint's parameters: target name → sources + function.

Invariant (`check_bound`): every parameter of the table feeds exactly one target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import Parameter, Role
from edgeproof.families.structure import Structure

Transform = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Target:
    """One tensor of an output file.

    `transform` is a pure function of the sources' arrays, in the stored dtype. None means "as it
    is": such a target may be streamed in blocks of rows, so that an embedding of any size costs a
    constant amount of memory. `shape` is the shape after the transform. A tensor that follows from
    the config alone has no sources; its transform gives the values.
    """

    name: str
    sources: tuple[Parameter, ...]
    shape: tuple[int, ...]
    transform: Transform | None = None

    @property
    def role(self) -> Role | None:
        """The role of the first source (fused targets have sources of one kind)."""
        return self.sources[0].role if self.sources else None

    @property
    def origin(self) -> str:
        """The name for messages: the checkpoint's, where there is one."""
        return self.sources[0].name if self.sources else self.name


def with_norm_offset(target: Target, structure: Structure) -> Target:
    """A norm's weight as what x is multiplied with: offset + weight, in float32.

    Other targets, and norms without an offset, stay as they are.
    """
    norm = structure.norms.get(target.role) if target.role else None
    if norm is None or norm.offset == 0:
        return target
    before, offset = target.transform or (lambda arrays: arrays[0]), np.float32(norm.offset)
    return replace(target, transform=lambda arrays: before(arrays).astype(np.float32) + offset)


def stack_rows(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Fuse linear weights that share their input: concatenate [out_i, in] along the outputs."""
    return np.concatenate(arrays, axis=0)


def streamable(target: Target) -> list[Target]:
    """Targets with the same rows in the same order; of stacked weights each source, as it is."""
    if target.transform is not stack_rows:
        return [target]
    return [Target(source.name, (source,), source.shape) for source in target.sources]


def check_bound(targets: Iterable[Target], parameters: Iterable[Parameter]) -> None:
    """Refuse a mapping that drops, repeats or invents a parameter, or repeats a target name.

    Raises:
        InputError: naming the tensor.
    """
    targets = list(targets)
    used = Counter(source.name for target in targets for source in target.sources)
    expected = {parameter.name for parameter in parameters}
    for name in expected - set(used):
        raise InputError(f"tensor {name} would be left out of the export")
    for name, count in used.items():
        if count > 1 or name not in expected:
            raise InputError(f"tensor {name} is bound {count} times or is not in the checkpoint")
    for name, count in Counter(target.name for target in targets).items():
        if count > 1:
            raise InputError(f"two tensors of the export are named {name}")
