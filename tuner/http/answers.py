"""What every route answers with, and how it reads a body."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import Request, Response

from pod_integrate.errors import PodAttentionError
from tuner.view import documents

# Of one body of some MiB; our own clients give up sooner.
BODY_SECONDS = 30.0
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
    """The body, given up as soon as it is longer than `limit` or takes over BODY_SECONDS.

    what, remedy  what the body is and how to make it shorter, for the error
    """
    body = bytearray()
    # Closing saves reading the rest.
    close = {"Connection": "close"}
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise ApiError(413, f"{what} is over {limit} bytes; {remedy}", close)
    except TimeoutError as error:
        # Else clients that stall would hold sockets and what they have sent for good.
        text = f"{what} was not here whole within {BODY_SECONDS:g} s; send it again"
        raise ApiError(408, text, close) from error
    return bytes(body)
