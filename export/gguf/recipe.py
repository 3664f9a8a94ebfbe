"""What a GGUF variant asks for: a type or a mixture, and the user's overrides of it.

Reuse and the manifest follow from the recipe; a variant's name holds the overrides too, so that two
recipes never share a folder (two importance matrices do: the name says only that there is one).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeproof.artifact import Precision, Variant
from edgeproof.errors import InputError
from edgeproof.families import Role
from export.gguf.storage import FOREIGN, LAYOUTS, TYPES, Layout
from export.rounding.options import with_rounding
from export.rounding.recipe import IMATRIX, ROUNDING, RoundedRecipe
from export.rounding.registry import DEFAULT, OWN
from export.targets import Target

# Mixtures that llama.cpp itself chooses the types of → its llama_ftype (llama.h).
MIXTURES = {
    "Q6_K": 18,
    "Q5_K_M": 17,
    "Q5_K_S": 16,
    "Q4_K_M": 15,
    "Q4_K_S": 14,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "Q3_K_M": 12,
    "Q2_K": 10,
}
# Not a type: each tensor has the one of its grid in the checkpoint's recovery.json.
RECOVERED = "RECOVERED"
# Names of options.
PURE = "pure"
EMBEDDING_TYPE = "token-embedding-type"
OUTPUT_TYPE = "output-tensor-type"
# A pattern that may stand in a folder's name. It has no hyphen, so that it is no option's label.
PLAIN = re.compile(r"[a-z0-9_.]{1,32}")
# From the best to the worst, and the class of each type; all other types are LOW_BIT.
PRECISIONS = list(Precision)
PRECISION = {
    "F32": Precision.FP32,
    "F16": Precision.FP16,
    "BF16": Precision.BF16,
    "Q8_0": Precision.EIGHT_BIT,
}


@dataclass(frozen=True)
class SplitLimits:
    """The most bytes and tensors that a file may have; None for no limit."""

    max_bytes: int | None = None
    max_tensors: int | None = None


@dataclass(frozen=True)
class MatrixWish:
    """An importance matrix that is still to be measured, on a text or on the model's own."""

    calibration: Path | None


@dataclass(frozen=True)
class Recipe(RoundedRecipe):
    """`linear` and `head` name a type or a mixture; the rest is None or empty if not overridden.

    `wish` is None in a recipe that is complete, the only one that is written or recorded; a dry run
    goes without, so that nothing is measured.
    """

    linear: str
    head: str
    pure: bool = False
    embedding: str | None = None
    output: str | None = None
    patterns: tuple[tuple[str, str], ...] = ()
    splits: SplitLimits = SplitLimits()
    wish: MatrixWish | None = None

    @property
    def types(self) -> list[str]:
        """The types and the mixture that it names."""
        return [self.linear, self.head, *self.overrides]

    @property
    def overrides(self) -> list[str]:
        """The types that override those of the variant's name."""
        types = (self.embedding, self.output, *(kind for _, kind in self.patterns))
        return [kind for kind in types if kind is not None]

    @property
    def direct(self) -> bool:
        """Whether every type in it is written here, without llama.cpp.

        With an importance matrix llama.cpp rounds all types, unless a method of ours uses it. So
        it does IQ4_NL, unless the codes follow from the checkpoint.
        """
        if self.linear == RECOVERED:
            return True
        if self.rounding.method in OWN and self.rounding.on_grid is None:
            foreign = any(kind in FOREIGN for kind in self.types)
            if self.weighed or foreign:
                return False
        return self.all_here

    @property
    def all_here(self) -> bool:
        """Whether every type in it can be written here, given its codes."""
        return all(kind in TYPES for kind in self.types)

    @property
    def weighed(self) -> bool:
        """Whether an importance matrix has its part in it, measured already or not."""
        return self.rounding.imatrix is not None or self.wish is not None

    @property
    def file_type(self) -> int:
        """llama.cpp's llama_ftype, which is also `general.file_type`."""
        if self.linear in MIXTURES:
            return MIXTURES[self.linear]
        return TYPES[self.linear].file_type

    @property
    def override_labels(self) -> tuple[str, ...]:
        """What the overrides add to the names of folders and files."""
        labels = [PURE] if self.pure else []
        if self.embedding:
            labels.append(f"token-embedding-{self.embedding.lower()}")
        if self.output:
            labels.append(f"output-tensor-{self.output.lower()}")
        for pattern, kind in self.patterns:
            digest = hashlib.sha256(pattern.encode()).hexdigest()[:12]
            text = pattern if PLAIN.fullmatch(pattern) else digest
            labels.append(f"{text}-{kind.lower()}")
        if self.linear != RECOVERED and self.rounding.method != DEFAULT:
            labels.append(self.rounding.method)
        if self.weighed:
            labels.append(IMATRIX)
        return tuple(labels)

    @property
    def label(self) -> str:
        """The type in llama.cpp's spelling, and the overrides: the end of a file's name."""
        return "-".join((self.linear, *self.override_labels))

    def override(self, name: str) -> str | None:
        """The type of the first pattern that is found in the tensor's name, or None."""
        return next((kind for text, kind in self.patterns if re.search(text, name)), None)

    def check(self, targets: Sequence[Target]) -> None:
        """Refuse overrides that would have no effect or cannot be stored.

        Raises:
            InputError: naming the option.
        """
        roles = {target.role: target for target in targets}
        matrices = [target.name for target in targets if len(target.shape) > 1]
        for text, kind in self.patterns:
            if not any(re.search(text, name) for name in matrices):
                raise InputError(
                    f"--tensor-type {text}={kind.lower()}: no tensor's name matches; names are"
                    " token_embd.weight, blk.0.attn_q.weight, blk.0.ffn_down.weight, …"
                )
        if self.patterns and not self.direct and LAYOUTS.get(self.linear, BLOCKS).block_size == 1:
            raise InputError(
                f"--tensor-type: llama.cpp changes no tensors of {self.linear}; choose --dtype q8_0"
                " or smaller, or only types without K and IQ"
            )
        if self.output and Role.HEAD not in roles and (self.pure or self.embedding):
            raise InputError(
                "--output-tensor-type: the embedding is also the output matrix, and --pure or"
                " --token-embedding-type decides its type; leave one of them out"
            )
        head = roles.get(Role.HEAD, roles[Role.EMBEDDING])
        _check_fit(f"--{EMBEDDING_TYPE}", self.embedding, roles[Role.EMBEDDING])
        _check_fit(f"--{OUTPUT_TYPE}", self.output, head)


BLOCKS = Layout("", 0, 256, 0)  # a mixture: blocks of some size


def with_overrides(
    variant: Variant[Recipe],
    *,
    pure: bool = False,
    token_embedding_type: str | None = None,
    output_tensor_type: str | None = None,
    tensor_type: Sequence[str] = (),
) -> Variant[Recipe]:
    """The variant with overrides in its recipe and in its name, such as q4_0-pure.

    Raises:
        InputError: an unknown type, or `tensor_type` with something that is not PATTERN=TYPE.
    """
    own = variant.recipe
    if own.linear == RECOVERED:
        if pure or token_embedding_type or output_tensor_type or tensor_type:
            raise InputError(
                f"{variant.name}: recovery.json gives each tensor its type; leave"
                f" out --{PURE}, --{EMBEDDING_TYPE}, --{OUTPUT_TYPE} and --tensor-type"
            )
        return variant
    recipe = replace(
        own,
        head=own.linear if pure else own.head,
        pure=pure,
        embedding=_optional_type(token_embedding_type, f"--{EMBEDDING_TYPE}"),
        output=_optional_type(output_tensor_type, f"--{OUTPUT_TYPE}"),
        patterns=tuple(map(_pattern, tensor_type)),
    )
    precisions = (PRECISION.get(kind, Precision.LOW_BIT) for kind in recipe.overrides)
    return replace(
        variant,
        name="-".join((variant.name, *recipe.override_labels)),
        precision=max((variant.precision, *precisions), key=PRECISIONS.index),
        recipe=recipe,
        aliases=variant.aliases if recipe == own else (),
    )


def with_method(variant: Variant[Recipe], name: str | None) -> Variant[Recipe]:
    """The variant, its overrides included, with a method of rounding.

    Raises:
        InputError: an unknown method, or nothing in the variant is rounded by one of ours.
    """
    kinds = variant.recipe.types
    if name is None or name == DEFAULT:
        return variant
    if variant.recipe.linear == RECOVERED:
        raise InputError(f"--{ROUNDING}: {variant.name} has codes already; leave it out")
    foreign = [kind.lower() for kind in kinds if kind not in TYPES]
    foreign += [kind.lower() for kind in kinds if kind in FOREIGN and name in OWN]
    if foreign:
        raise InputError(f"--{ROUNDING}: llama.cpp itself rounds {foreign[0]}; choose q4_0 or q8_0")
    has_codes = any(LAYOUTS.get(kind, BLOCKS).block_size > 1 for kind in kinds)
    return with_rounding(variant, name, has_codes=has_codes)


def _check_fit(option: str, kind: str | None, target: Target) -> None:
    if kind is not None and not LAYOUTS[kind].fits(target.shape):
        raise InputError(
            f"{option} {kind.lower()}: it stores blocks of {LAYOUTS[kind].block_size} values, rows"
            f" of {target.shape[-1]} of {target.name} do not divide into them; choose q8_0"
        )


def _optional_type(text: str | None, option: str) -> str | None:
    return None if text is None else _type(text, option)


def _type(text: str, option: str) -> str:
    if text.upper() not in LAYOUTS:
        known = ", ".join(LAYOUTS).lower()
        raise InputError(f"{option}: unknown type {text!r}; choose from {known}")
    return text.upper()


def _pattern(item: str) -> tuple[str, str]:
    pattern, equals, kind = item.rpartition("=")
    if not equals or not pattern:
        raise InputError(f"--tensor-type {item!r} is not PATTERN=TYPE, for example attn_v=q8_0")
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"--tensor-type {pattern!r}: not a regular expression ({error})") from None
    return pattern, _type(kind, "--tensor-type")
