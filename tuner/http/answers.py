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


def content_type(request: Request, *kinds: str) -> str:
    """Which of `kinds` a body is, the first where the request names none; else ApiError."""
    kind = request.headers.get("content-type", kinds[0]).split(";")[0].strip().lower()
    if kind not in kinds:
        raise ApiError(
            415,
            f"content type is {kind[:64]!r}; send Content-Type: {' or '.join(kinds)}",
        )
    return kind


async def read(request: Request, limit: int, *, what: str, remedy: str) -> bytes:
    """The body, given up as soon as it is longer than `limit`.

    what, remedy  what the body is and how to make it shorter, for the error
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            text = f"{what} is over {limit} bytes; {remedy}"
            # Closing saves reading the rest.
            raise ApiError(413, text, {"Connection": "close"})
    return bytes(body)
