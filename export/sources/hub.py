"""A repository of the Hugging Face hub, downloaded into the hub library's own cache.

Invariant: only safetensors weights and text files are ever fetched, never pickles; `revision` is
the commit that was fetched. The library resumes files and retries dropped connections; it does not
retry a 5xx on every endpoint, so whole attempts are repeated here (finished files stay).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from edgeproof.checkpoints.tokenizer import FURTHER_TEMPLATES, TOKENIZER_FILES
from edgeproof.checkpoints.weight_files import ADAPTER, INDEX
from edgeproof.display import errors_on_terminal
from edgeproof.errors import InputError
from edgeproof.files.atomic import storage_errors
from export.checkpoint.model_card import MODEL_CARD
from export.sources.source import Source

BESIDE = (*TOKENIZER_FILES, FURTHER_TEMPLATES, MODEL_CARD)
WANTED = ("config.json", "*.safetensors", INDEX, *BESIDE)
# Of an adapter of PEFT.
WANTED_OF_ADAPTERS = (ADAPTER, "adapter_model.safetensors", *BESIDE)
# Other layouts of the same weights, in folders or beside: twice the download, never read.
UNWANTED = ("*/*.safetensors", "consolidated*.safetensors", "adapter*.safetensors")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PAUSES_S = (0.5, 1.0, 2.0)
RETRIED_STATUS = (408, 429)
BUNDLED_HINT = "or use the built-in model: --model bundled"

T = TypeVar("T")


def resolve_hub(repo: str, revision: str | None) -> Source:
    """Download what is missing of `org/name` at a branch, tag or commit (default: main).

    Raises:
        InputError: no network, no such repository or revision, no access, no safetensors weights.
    """
    folder = reached(repo, revision, lambda: _snapshot(repo, revision, WANTED, UNWANTED))
    # An adapter of that commit may be in the same folder.
    if all(path.name.startswith("adapter") for path in folder.glob("*.safetensors")):
        reached(repo, revision, lambda: _refuse_weights(repo, folder.name))
    name = repo.split("/")[1]
    label = f"{name}@{revision.replace('/', '-')}" if revision else name
    return Source(folder, label, name, repo, revision=folder.name)


def download_adapter(repo: str) -> Source:
    """Download what is missing of an adapter, `org/name` at main; `path` is its folder.

    Raises:
        InputError: as for `resolve_hub`.
    """
    folder = reached(repo, None, lambda: _snapshot(repo, None, WANTED_OF_ADAPTERS, ()))
    if not any(folder.glob("*.safetensors")):
        reached(repo, None, lambda: _refuse_weights(repo, folder.name))
    name = repo.split("/")[1]
    return Source(folder, name, name, repo, revision=folder.name)


def is_cached(repo: str, revision: str | None) -> bool:
    """Whether config and weights of a repository are in the hub library's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return False
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _snapshot(
    repo: str, revision: str | None, wanted: Sequence[str], unwanted: Sequence[str]
) -> Path:
    from huggingface_hub import snapshot_download

    # The cache's layout is documented: .../snapshots/<commit>.
    return Path(
        snapshot_download(
            repo, revision=revision, allow_patterns=[*wanted], ignore_patterns=[*unwanted]
        )
    )


def _refuse_weights(repo: str, commit: str) -> NoReturn:
    from huggingface_hub import HfApi

    files = HfApi().list_repo_files(repo, revision=commit)
    if "adapter_model.safetensors" in files:
        raise InputError(f"{repo}: an adapter, not a model; give --model BASE --adapter {repo}")
    pickled = sorted(name for name in files if name.endswith(PICKLED))
    if pickled:
        raise InputError(
            f"{repo}: has only pickled weights ({pickled[0]}), which are never loaded since they"
            " can run code; ask for a safetensors version"
        )
    gguf = sorted(name for name in files if name.endswith(".gguf"))
    if gguf:
        raise InputError(f"{repo}: holds GGUF files; download {gguf[0]} and pass its path")
    raise InputError(f"{repo}: holds no model.safetensors")


def reached(
    repo: str, revision: str | None, attempt: Callable[[], T], hint: str = BUNDLED_HINT
) -> T:
    """What an attempt on the hub gives, made again where the hub or the network falters.

    `hint` says what to do where it stays out of reach.

    Raises:
        InputError: in one line, why it cannot be had.
    """
    from huggingface_hub import constants

    with storage_errors(Path(constants.HF_HUB_CACHE)), _quiet_library():
        return _with_retries(repo, revision, attempt, hint)


def _with_retries(repo: str, revision: str | None, attempt: Callable[[], T], hint: str) -> T:
    from huggingface_hub.errors import HfHubHTTPError

    # requests.HTTPError in huggingface_hub 0.x, httpx's base of every failure later; with OSError
    # (requests' base) this covers the transport errors of both.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    for pause in (*PAUSES_S, None):
        try:
            return attempt()
        except (OSError, http_error) as error:
            if pause is None or not _transient(error):
                raise _explain(error, repo, revision, hint) from None
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{repo}: {_endpoint()} did not answer like a hub ({_line(error)});"
                " check the id, the proxy and HF_ENDPOINT"
            ) from None
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _transient(error: Exception) -> bool:
    """Whether another attempt may succeed: server trouble or a broken connection."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    # The library wraps what went wrong on the way into "not in the cache".
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        return status >= 500 or status in RETRIED_STATUS
    if cause is None or isinstance(cause, OfflineModeIsEnabled):
        return False
    return not isinstance(cause, OSError) or cause.errno is None or _is_connection(cause)


def _is_connection(error: Exception) -> bool:
    return isinstance(error, (ConnectionError, TimeoutError))


def _explain(error: Exception, repo: str, revision: str | None, hint: str) -> Exception:
    """The one-line error for a failure, or the failure itself where it is the disk's."""
    from huggingface_hub import constants, errors

    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    if constants.HF_HUB_OFFLINE:
        return InputError(
            f"{repo}: not complete in the hub cache, and HF_HUB_OFFLINE is set; unset it, {hint}"
        )
    explanations = (
        (
            errors.GatedRepoError,
            f"{repo}: gated; accept its terms at {_endpoint()}/{repo}, then run `hf auth login`",
        ),
        (
            errors.RepositoryNotFoundError,
            f"{repo}: no such folder here and no such model on {_endpoint()}"
            " (if it is private, run `hf auth login`)",
        ),
        (
            errors.RevisionNotFoundError,
            f"{repo}: has no revision {revision!r}; branches and tags are listed at"
            f" {_endpoint()}/{repo}/tree/main",
        ),
    )
    for kind, message in explanations:
        if isinstance(cause, kind):
            return InputError(message)
    if isinstance(cause, errors.HfHubHTTPError):
        return _explain_status(cause.response.status_code, repo, hint)
    if isinstance(cause, OSError) and cause.errno is not None and not _is_connection(cause):
        return cause
    return InputError(
        f"{repo}: cannot be fetched from {_endpoint()} ({_line(cause or error)});"
        f" check the network and run again (downloads resume), {hint}"
    )


def _explain_status(status: int, repo: str, hint: str) -> InputError:
    if status in (401, 403):
        return InputError(f"{repo}: access denied (HTTP {status}); run `hf auth login`")
    return InputError(
        f"{repo}: {_endpoint()} answers HTTP {status} again and again; try later, {hint}"
    )


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _line(error: BaseException) -> str:
    """The first sentence of a library's message, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."


@contextlib.contextmanager
def _quiet_library() -> Iterator[None]:
    """No warnings about retries, which would hide the one line that matters; bars on terminals."""
    from huggingface_hub.utils import logging as library
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before = library.get_verbosity()
    hide_bars = not errors_on_terminal() and not are_progress_bars_disabled()
    library.set_verbosity(logging.ERROR)
    if hide_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        library.set_verbosity(before)
        if hide_bars:
            enable_progress_bars()
