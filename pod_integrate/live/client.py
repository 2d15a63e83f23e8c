"""HTTP to the tuner as a serving process needs it: two calls, bounded in time and size."""

from __future__ import annotations

import ssl
import time
from typing import NamedTuple

import httpx

from pod_integrate.errors import TableError
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.table import MAX_TABLE_BYTES

_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
# A tuner that trickles bytes resets every read timeout; the whole answer has this long.
_BODY_SECONDS = 10.0


class TableAnswer(NamedTuple):
    """A table as the tuner sent it, unchecked, and the ETag to ask for news with."""

    body: bytes
    etag: str | None


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
            return TableAnswer(_read(response), response.headers.get("ETag"))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _split(url: str) -> tuple[httpx.URL, tuple[str, str] | None]:
    """A URL without its user and password, which httpx would log, and these."""
    parsed = httpx.URL(url.rstrip("/"))
    auth = (parsed.username, parsed.password) if parsed.userinfo else None
    return parsed.copy_with(username=None, password=None), auth


def _read(response: httpx.Response) -> bytes:
    deadline = time.monotonic() + _BODY_SECONDS
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_TABLE_BYTES:
            raise TableError(f"table is over {MAX_TABLE_BYTES} bytes")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout(f"table took over {_BODY_SECONDS:g} s")
    return bytes(body)
