"""What every route answers with, and how it reads a body."""

from __future__ import annotations

import msgspec
from fastapi import Request, Response

from pod_integrate.errors import PodAttentionError
from tuner.view import documents

MSGPACK, JSON = "application/x-msgpack", "application/json"


class ApiError(PodAttentionError):
    """An answer other than success."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


def json_answer(document: documents.Document, status: int = 200) -> Response:
    """A document."""
    return Response(msgspec.json.encode(document), status, media_type=JSON)


def is_json(request: Request, *, unsaid: str) -> bool:
    """Whether a body is JSON and not msgpack; ApiError for anything else.

    unsaid  content type of a request that names none
    """
    kind = request.headers.get("content-type", unsaid).split(";")[0].strip().lower()
    if kind not in (MSGPACK, JSON):
        raise ApiError(415, f"content type is {kind[:64]!r}; send {MSGPACK} or {JSON}")
    return kind == JSON


async def read(request: Request, limit: int) -> bytes:
    """The body, given up as soon as it is longer than `limit`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            text = f"trace message is over {limit} bytes; post more often"
            # Closing saves reading the rest.
            raise ApiError(413, text, {"Connection": "close"})
    return bytes(body)
