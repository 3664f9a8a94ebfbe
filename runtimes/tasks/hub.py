"""Whether the hub can be reached: who asks it in vain waits through its retries for minutes."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator
from urllib.error import HTTPError

SECONDS = 10


@contextlib.contextmanager
def offline_where_unreachable(asked: bool) -> Iterator[None]:
    """Have `datasets` look only on this machine meanwhile, where the hub is `asked` in vain."""
    import datasets
    from huggingface_hub import constants

    if not asked or constants.HF_HUB_OFFLINE or _reachable(constants.ENDPOINT):
        yield
        return
    places = [(constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE")]
    before = [getattr(place, name) for place, name in places]
    for place, name in places:
        setattr(place, name, True)
    try:
        yield
    finally:
        for (place, name), value in zip(places, before, strict=True):
            setattr(place, name, value)


def _reachable(address: str) -> bool:
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return True
    except HTTPError:  # it answers
        return True
    except (OSError, ValueError):
        return False
