"""HTTP to the tuner as a serving process needs it: a few calls, bounded in time and size."""

from __future__ import annotations

import ssl
import time
from contextlib import AbstractContextManager
from typing import NamedTuple
from urllib.parse import quote

import httpx
import msgspec

from pod_integrate.errors import TableError, TraceError
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.experiment import MAX_MESSAGE_BYTES
from pod_integrate.terms.table import MAX_TABLE_BYTES

_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
# A tuner that trickles bytes resets every read timeout; the whole answer has this long.
_BODY_SECONDS = 10.0


class TableAnswer(NamedTuple):
    """A table as the tuner sent it, unchecked, and the ETag to ask for news with."""

    body: bytes
    etag: str | None


class _Noted(msgspec.Struct):
    taken: bool
    done: bool = False


class TunerClient:
    """Blocking client for one tuner; for one thread.

    url        base URL of the tuner
    token      bearer token or None
    transport  httpx transport, for tests

    Methods raise httpx.HTTPError (statuses included), httpx.StreamError or httpx.InvalidURL.
    """

    def __init__(
        self, url: str, *, token: str | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # The tuner is inside the cluster: a proxy set for downloads must not see traces or tokens.
        base, auth = _split(url)
        self._client = httpx.Client(
            base_url=base,
            auth=auth,
            headers=headers,
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=False,
            verify=ssl.create_default_context() if url.startswith("https:") else True,
        )

    def post_traces(self, body: bytes) -> None:
        """Post one encoded TraceMessage."""
        headers = {"Content-Type": "application/x-msgpack"}
        self._client.post("/v1/traces", content=body, headers=headers).raise_for_status()

    def get_table(self, active: ActiveTable, etag: str | None) -> TableAnswer | None:
        """The table for the keys of `active`; None when it is not newer than `etag` or not there.

        Raises TableError on a body over MAX_TABLE_BYTES.
        """
        keys = {
            "geometry": str(active.geometry),
            "device": str(active.device),
            "build": active.build,
        }
        headers = {"If-None-Match": etag} if etag else {}
        with self._client.stream("GET", "/v1/table", params=keys, headers=headers) as response:
            if response.status_code in (304, 404):
                return None
            response.raise_for_status()
            body = _read(response, MAX_TABLE_BYTES)
            if body is None:
                raise TableError(f"table is over {MAX_TABLE_BYTES} bytes")
            return TableAnswer(body, response.headers.get("ETag"))

    def ask_experiment(self, body: bytes) -> bytes | None:
        """Post an ExperimentAsk; an Experiment, unchecked, or None where there is nothing to try.

        A tuner that knows no experiments has none. Raises TraceError on too long an answer.
        """
        with self._post("/v1/experiments", body) as response:
            if response.status_code in (204, 404, 405):
                return None
            response.raise_for_status()
            answer = _read(response, MAX_MESSAGE_BYTES)
        if answer is None:
            raise TraceError(f"experiment is over {MAX_MESSAGE_BYTES} bytes")
        return answer

    def report_experiment(self, id: str, body: bytes) -> bool:
        """Post an ExperimentReport; whether the tuner took it and wants the experiment to go on."""
        with self._post(f"/v1/experiments/{quote(id, safe='')}/report", body) as response:
            # It has ended the experiment, or forgotten it.
            if response.status_code in (404, 409, 410):
                return False
            response.raise_for_status()
            answer = _read(response, MAX_MESSAGE_BYTES)
        try:
            noted = msgspec.json.decode(answer or b"", type=_Noted)
        except (msgspec.MsgspecError, ValueError) as error:
            raise TraceError(f"answer to a report is malformed: {error}") from error
        return noted.taken and not noted.done

    def _post(self, path: str, body: bytes) -> AbstractContextManager[httpx.Response]:
        headers = {"Content-Type": "application/json"}
        return self._client.stream("POST", path, content=body, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _split(url: str) -> tuple[httpx.URL, tuple[str, str] | None]:
    """A URL without its user and password, which httpx would log, and these."""
    parsed = httpx.URL(url.rstrip("/"))
    auth = (parsed.username, parsed.password) if parsed.userinfo else None
    return parsed.copy_with(username=None, password=None), auth


def _read(response: httpx.Response, most: int) -> bytes | None:
    """The whole body; None where it is longer than `most` bytes."""
    deadline = time.monotonic() + _BODY_SECONDS
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > most:
            return None
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout(f"answer took over {_BODY_SECONDS:g} s")
    return bytes(body)
