"""The base of an adapter: what PEFT noted it was made for, and whether it can be this one."""

from __future__ import annotations

import logging
from pathlib import Path

from edgeproof.checkpoints.origin import HUB_ID
from edgeproof.errors import InputError
from export.sources.adapters.config import AdapterConfig
from export.sources.adapters.place import is_adapter
from export.sources.bundled import BUNDLED, REPO
from export.sources.grown import GROWN
from export.sources.on_disk import on_disk
from export.sources.source import Source

log = logging.getLogger(__name__)


def find_base(config: AdapterConfig) -> tuple[str, str | None]:
    """What `resolve` finds the base of an adapter by: a folder here or a hub id, and its revision.

    Nothing is downloaded: somebody who gave an adapter as a model asked for no other model.

    Raises:
        InputError: the base is neither here nor in the hub library's cache.
    """
    folder, base = config.path.parent, config.base
    if base is not None and on_disk(base):
        if is_adapter(Path(base).expanduser()):
            raise InputError(
                f"{folder}: an adapter of {base}, which is one itself; give the model that both"
                f" change, --model BASE --adapter {base} --adapter {folder}"
            )
        return base, None
    if base is not None and HUB_ID.fullmatch(base):
        from export.sources.hub import is_cached

        if is_cached(base, config.revision):
            return base, config.revision
    given = base if base is not None and HUB_ID.fullmatch(base) else "BASE"
    raise InputError(
        f"{folder}: an adapter of {base or 'a model that it does not name'}, which is not on this"
        f" machine: --model {given} --adapter {folder}"
    )


def check_base(base: Source, config: AdapterConfig) -> None:
    """Refuse a base that cannot be the adapter's, and note one that may not be.

    Raises:
        InputError: the base has its channels in an order of its own, and the adapter is not its.
    """
    folder, made_for = config.path.parent, config.base
    if config.says_transposed:
        log.warning(
            "%s: fan_in_fan_out is not for layers like the base's and has no effect, as in PEFT",
            config.path,
        )
    if base.repo == REPO:
        here = made_for is not None and on_disk(made_for) and base.path.samefile(made_for)
        if made_for not in (BUNDLED, *GROWN) and not here:
            raise InputError(
                f"{folder}: an adapter of {made_for or 'a model that it does not name'}, whose"
                " channels the built-in model has in another order (docs/architecture.md):"
                f" --model {made_for or 'BASE'} --adapter {folder}"
            )
    elif made_for != base.repo and all(map(HUB_ID.fullmatch, (made_for or "", base.repo or ""))):
        log.warning("%s: made for %s, merged into %s", folder, made_for, base.repo)
