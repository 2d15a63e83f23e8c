"""HTTP to a tuner as a person's commands need it: an answer, or what was wrong in one sentence."""

from __future__ import annotations

from typing import Any, TypeVar

import httpx
import msgspec

from pod_integrate.errors import SettingsError
from pod_integrate.redact import public_url

_TIMEOUT = 30.0

T = TypeVar("T", bound=msgspec.Struct)


class Done(msgspec.Struct):
    """What an order did, in words."""

    done: str


class ScopeRow(msgspec.Struct):
    """One table of a tuner."""

    geometry: str
    device: str
    build: str


class BucketRow(ScopeRow):
    """One bucket of a tuner's traffic."""

    bucket: str


class Overview(msgspec.Struct):
    """Of a tuner's overview what commands look at."""

    tables: list[ScopeRow]
    buckets: list[BucketRow]


class Buckets(msgspec.Struct):
    """Of a table the buckets that it lists."""

    entries: dict[str, msgspec.Raw]


def fetch(method: str, url: str, path: str, **arguments: Any) -> bytes:
    """The body of an answer; raises SettingsError with what the tuner said, or why it said none.

    arguments  of httpx.Client.request
    """
    # The tuner is inside the cluster: a proxy set for downloads must not see tokens.
    try:
        with httpx.Client(base_url=url.rstrip("/"), timeout=_TIMEOUT, trust_env=False) as client:
            answer = client.request(method, path, **arguments)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SettingsError(
            f"tuner {public_url(url)}: {type(error).__name__}: {error}; is it up there?"
        ) from error
    except UnicodeError as error:
        # Bytes of the command line that are no text; the error itself would quote the whole body.
        raise SettingsError(
            "an argument is not valid Unicode text and cannot be sent; write it in UTF-8"
        ) from error
    if answer.is_error:
        raise SettingsError(f"the tuner refused: {_said(answer)}")
    return answer.content


def document(kind: type[T], method: str, url: str, path: str, **arguments: Any) -> T:
    """An answer, which has to be a JSON object with the fields of `kind`, others beside.

    Raises SettingsError as `fetch` does, and where something else than a tuner answers.
    """
    body = fetch(method, url, path, **arguments)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SettingsError(
            f"{public_url(url)} is no tuner, or one of another release: {error}; a tuner says "
            "its address when it starts"
        ) from error


def _said(answer: httpx.Response) -> str:
    try:
        return str(msgspec.json.decode(answer.content, type=dict[str, Any])["error"])[:500]
    except (msgspec.MsgspecError, KeyError, ValueError, RecursionError):
        return f"HTTP {answer.status_code}"
