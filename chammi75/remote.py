"""What remote places need: anonymous S3 unless credentials are asked for, short patience, and errors in words.

Public buckets answer whoever asks without a signature, and refuse signatures that are wrong. So credentials that
happen to be in the environment are never sent unless somebody says so.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

S3_PROTOCOLS = ("s3", "s3a")

_CREDENTIAL_WORDS = ("anon", "key", "secret", "token", "profile", "session", "username", "password")
_CLIENT_CREDENTIAL_WORDS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_REGION = "us-east-1"  # the default of S3 itself; other regions are found by asking
_RESOLVES = re.compile(r"[a-z0-9-]{1,63}")  # anything else is refused before a request is made
_CONNECT_TIMEOUT_S = 5
_ATTEMPTS = 2  # of botocore; s3fs itself asks five times again where a server says that it is busy
_CONNECTIONS = 256  # botocore's own bound, 10, gives 300 requests a second where a server is 30 ms away

_MOVED = ("301", "307", "308", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed")
_REFUSED = ("401", "403", "AccessDenied", "Forbidden", "AllAccessDisabled", "AccountProblem")
_BAD_CREDENTIALS = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
)
_UNREACHABLE = (  # by name, because importing what raises them takes half a second
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "ReadTimeoutError",
    "ProxyConnectionError",
    "HTTPClientError",
    "ClientConnectorError",
    "ServerTimeoutError",
    "ServerDisconnectedError",
    "FSTimeoutError",
)


def s3_options(options: Mapping[str, Any], *, writing: bool = False) -> dict[str, Any]:
    """What s3fs is told: ``options``, and what they leave open.

    Reading is anonymous unless ``options``, or fsspec's own configuration (``FSSPEC_S3_ANON`` and its like), say
    something of credentials; writing is always signed. A host that does not answer is given up after seconds.

    Examples
    --------
    >>> s3_options({})["anon"], "anon" in s3_options({"key": "me", "secret": "word"})
    (True, False)
    >>> "anon" in s3_options({}, writing=True)
    False
    """
    from fsspec.config import conf

    configured: Mapping[str, Any] = conf.get("s3", {})
    stated = dict(options)
    if "anon" not in stated and isinstance(configured.get("anon"), str):  # bool("False") is True
        stated["anon"] = configured["anon"].strip().lower() not in ("", "0", "false", "no", "off")
    if not writing and not _says_credentials(stated) and not _says_credentials(configured):
        stated["anon"] = True
    if stated.get("anon"):
        stated.setdefault("session", _session_of_nobody(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config"))
    if stated.get("anon") and not _RESOLVES.fullmatch(os.environ.get("AWS_DEFAULT_REGION") or _REGION):
        stated["client_kwargs"] = {"region_name": _REGION, **dict(stated.get("client_kwargs") or {})}
    bounds = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "retries": {"max_attempts": _ATTEMPTS},
        "max_pool_connections": _CONNECTIONS,
    }
    stated["config_kwargs"] = {
        **bounds,
        **dict(configured.get("config_kwargs") or {}),
        **dict(stated.get("config_kwargs") or {}),
    }
    return stated


def is_anonymous(options: Mapping[str, Any] | None) -> bool:
    """Whether S3 is read without a signature under these options."""
    from fsspec.config import conf

    stated = s3_options(options or {})
    return bool(stated.get("anon", conf.get("s3", {}).get("anon", False)))


def _says_credentials(options: Mapping[str, Any]) -> bool:
    client = options.get("client_kwargs") or {}
    return any(word in options for word in _CREDENTIAL_WORDS) or any(
        word in client for word in _CLIENT_CREDENTIAL_WORDS
    )


@lru_cache(maxsize=4)
def _session_of_nobody(config_file: str) -> Any:
    """A session without profile and credentials, to which a configuration file that cannot be used means nothing.

    A profile that does not exist, or a file that does not parse, would stop anonymous reading.
    """
    from aiobotocore.session import AioSession

    nothing, no_file = (None, None, None, None), (None, None, os.devnull, None)
    absent = {"profile": nothing, "credentials_file": no_file}
    return AioSession(session_vars=absent if _is_usable(config_file) else {**absent, "config_file": no_file})


def _is_usable(config_file: str) -> bool:
    from botocore.configloader import load_config
    from botocore.exceptions import ConfigNotFound, ConfigParseError

    try:
        profiles = load_config(config_file)["profiles"]
    except ConfigNotFound:
        return True
    except ConfigParseError:
        return False
    return _RESOLVES.fullmatch(profiles.get("default", {}).get("region", _REGION)) is not None


def reading_errors() -> tuple[type[Exception], ...]:
    """What reading a URL may raise: OSError, and what the network libraries in use raise that is none.

    Examples
    --------
    >>> OSError in reading_errors()
    True
    """
    kinds = (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("aiohttp", "ClientError"),
        ("fsspec.exceptions", "FSTimeoutError"),
    )
    return (OSError, *(getattr(sys.modules[module], name) for module, name in kinds if module in sys.modules))


def is_unreachable(error: BaseException) -> bool:
    """Whether ``error`` means that no server answered: no network, an unknown host, a closed port.

    Examples
    --------
    >>> is_unreachable(ConnectionRefusedError()), is_unreachable(FileNotFoundError())
    (True, False)
    """
    return any(
        isinstance(cause, ConnectionError | TimeoutError | socket.gaierror)
        or any(kind.__name__ in _UNREACHABLE for kind in type(cause).__mro__)
        for cause in _causes(error)
    )


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the answer that an error stands for, as aiohttp and botocore raise it; None if there is none.

    Examples
    --------
    >>> status_of(ConnectionResetError()) is None
    True
    """
    for cause in _causes(error):
        status = getattr(cause, "status", None)
        if isinstance(status, int) and status:
            return status
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):
            stated = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return int(stated) if stated else None
    return None


def retry_after_s(error: BaseException) -> float | None:
    """Seconds that a server asks to be left alone for (RFC 9110, 10.2.3, as seconds or as a date); None if it does not.

    Examples
    --------
    >>> retry_after_s(ConnectionResetError()) is None
    True
    """
    for cause in _causes(error):
        headers = getattr(cause, "headers", None)
        if headers is None and isinstance(response := getattr(cause, "response", None), Mapping):
            headers = response.get("ResponseMetadata", {}).get("HTTPHeaders")
        stated = headers.get("Retry-After", headers.get("retry-after")) if isinstance(headers, Mapping) else None
        if stated is None:
            continue
        if str(stated).strip().isdigit():
            return float(stated)
        try:
            return max(0.0, parsedate_to_datetime(stated).timestamp() - time.time())
        except (TypeError, ValueError):  # neither a number nor a date: as if it were not there
            return None
    return None


def explain(error: BaseException, url: str, options: Mapping[str, Any] | None = None) -> str:
    """Why ``url`` could not be read, in one clause without the URL, and what to do about it.

    Parameters
    ----------
    error : Exception
        One of ``reading_errors()``.
    url : str
        What was read.
    options : mapping, optional
        The storage options it was read with.

    Examples
    --------
    >>> explain(FileNotFoundError(2, "No such file or directory"), "a.png")
    'No such file or directory'
    """
    is_s3 = any(f"{protocol}://" in url for protocol in S3_PROTOCOLS)
    code, answer = _answer(error)
    if is_s3 and code in _MOVED:
        region = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
        endpoint = answer.get("Error", {}).get("Endpoint")
        where = f" to the region {region}" if region else f" to {endpoint}" if endpoint else ""
        return (
            f"the bucket has moved{where} (answer {code}): give its address, or its region with"
            f' storage_options={{"client_kwargs": {{"region_name": "{region or "…"}"}}}}'
        )
    if is_s3 and code == "NoSuchBucket":
        return "there is no such bucket"
    if is_s3 and code in _BAD_CREDENTIALS:
        return f'the credentials are refused ({code}): correct them, or give storage_options={{"anon": True}}'
    if is_s3 and (code in _REFUSED or isinstance(error, PermissionError)):
        if is_anonymous(options if not isinstance((options or {}).get("s3"), Mapping) else (options or {})["s3"]):
            return (
                'the bucket refuses anonymous access (403): give storage_options={"anon": False}, or set'
                " FSSPEC_S3_ANON=false, to use your credentials"
            )
        return "the bucket refuses these credentials (403)"
    if is_unreachable(error):
        return f"no server answers ({_short(error)}): check the network and the address"
    return _short(error)


def _short(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return str(text)[:300] or ("in time" if is_unreachable(error) else type(error).__name__)


def _answer(error: BaseException) -> tuple[str, Mapping[str, Any]]:
    """The error code of an S3 server's answer, and the answer."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping) and "Error" in response:
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
            return str(response["Error"].get("Code") or status), response
    return "", {}


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__
