"""Models of the Hugging Face hub: safetensors alone are fetched, and what goes wrong is said in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chammi75.errors import ChammiError, FetchError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PATTERNS = ("config.json", "README.md", "*.safetensors")
_INSTEAD = (
    "what else can be used: a model's folder that chammi75 train has written, a checkpoint file that you have, or an"
    " open model by its name (CaicedoLab/MorphEm, timm:vit_small_patch16_224.dino)"
)


def is_hub_id(reference: str) -> bool:
    """Whether this is written like the id of a repository on the hub.

    Examples
    --------
    >>> is_hub_id("CaicedoLab/MorphEm"), is_hub_id("runs/one/model"), is_hub_id("vit_small_patch16_224")
    (True, False, False)
    """
    return _REPOSITORY.fullmatch(reference) is not None


def fetch_model(repository: str, revision: str | None = None) -> Path:
    """The folder, in the hub's own cache, that a repository's weights and config lie in.

    Parameters
    ----------
    repository : str
        ``owner/name``.
    revision : str, optional
        Branch, tag or commit.

    Raises
    ------
    FetchError
        If it is not there, gated or withdrawn, or the hub cannot be reached and nothing is in the cache.
    ChammiError
        If it holds no safetensors.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(repository):
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(_PATTERNS)))
    if not any(folder.glob("*.safetensors")):
        raise ChammiError(
            f"{repository}: the hub has no safetensors of it, and other weights are not read from strangers, since they"
            f" can run code; {_INSTEAD}"
        )
    return folder


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn what the hub's client raises into errors that say what can be used instead."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise FetchError(
            name,
            f"its owners give it to those alone whom they let in: ask on https://huggingface.co/{name} and log in with"
            f" hf auth login; {_INSTEAD}",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FetchError(
            name, f"the hub has no such model, or it was withdrawn, or it is private (hf auth login); {_INSTEAD}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FetchError(name, "the hub has the model, and not this revision of it: leave revision out") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise FetchError(
            name, f"the hub cannot be reached from here, and nothing of it is in the cache; {_INSTEAD}"
        ) from error
    except errors.HFValidationError as error:
        raise ChammiError(f"{name} is no id of a model on the hub, owner/name: {error}") from error
    except errors.HfHubHTTPError as error:
        raise FetchError(name, f"the hub refuses it ({_first_line(error)}); {_INSTEAD}") from error
    except OSError as error:  # what the HTTP client raises where there is no network
        if isinstance(error, ChammiError):
            raise
        raise FetchError(name, f"cannot be fetched ({_first_line(error)}); {_INSTEAD}") from error
    except Exception as error:
        if not _is_of_network(error):
            raise
        raise FetchError(name, f"the hub cannot be reached ({_first_line(error)}); {_INSTEAD}") from error


def _is_of_network(error: Any) -> bool:
    """Whether the HTTP client, whichever the hub's client uses, raised it: their errors share no base class."""
    return type(error).__module__.startswith(("httpx", "httpcore", "requests.", "urllib3."))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
