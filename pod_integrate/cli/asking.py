"""HTTP to a tuner as a person's commands need it: an answer, or what was wrong in one sentence."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from pod_integrate.errors import SettingsError
from pod_integrate.redact import public_url

_TIMEOUT = 30.0


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


def document(method: str, url: str, path: str, **arguments: Any) -> dict[str, Any]:
    """The JSON object of an answer; raises SettingsError as `fetch` does."""
    body = fetch(method, url, path, **arguments)
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise SettingsError(f"{public_url(url)} is no tuner: {error}") from error


def _said(answer: httpx.Response) -> str:
    try:
        return str(msgspec.json.decode(answer.content, type=dict[str, Any])["error"])[:500]
    except (msgspec.MsgspecError, KeyError):
        return f"HTTP {answer.status_code}"
