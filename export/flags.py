"""How an export is carried out, whatever it writes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportFlags:
    """What the command lines' shared flags ask for; their help texts say it in full.

    `force` writes again what is unchanged, `dry_run` writes nothing, `strict` refuses a variant
    with tensors in another type than it asks for, `verify` reopens what was written, where the
    format has a check, before it appears.
    """

    force: bool = False
    dry_run: bool = False
    strict: bool = False
    verify: bool = False
