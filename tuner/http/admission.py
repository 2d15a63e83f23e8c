"""Who may write: no web page of another site, whoever has the token, and in a known content type.

A browser sends a body of `text/plain` or of a form to any address, this machine's included, without
asking first, so a type that it must ask for is required. It names the page in `Origin`, also where
the body has no type; a client that names neither is no browser.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from fastapi import Request

from tuner.http.answers import ApiError, content_type
from tuner.settings import is_loopback


def admission(token: str, *kinds: str) -> Callable[[Request], Awaitable[None]]:
    """A dependency of a route that writes; it raises ApiError with 401, 403 or 415.

    token  bearer token that has to be given; empty: none, the tuner listens on loopback only
    kinds  content types that the route reads
    """

    async def admit(request: Request) -> None:
        _require_own_page(request, named=bool(token))
        _require_token(request, token)
        content_type(request, *kinds)

    return admit


def _require_own_page(request: Request, *, named: bool) -> None:
    """Refuse what a page of another site sends; what is no browser names no origin.

    named  whether a page may have reached the tuner by any name. On loopback such a name is one
           that another site has turned to this machine.
    """
    origin, host = request.headers.get("origin"), request.headers.get("host", "").lower()
    if origin is None:
        return
    place = origin.lower().partition("://")[2]
    if not place or place != host:
        raise ApiError(
            403,
            f"a web page of {origin[:100]!r} asks, and the tuner is {host[:100]!r}: pages of other "
            "sites may not write; use `pod-attn tuner`, or a client that sends no Origin",
        )
    if not named and not is_loopback(_name(host)):
        raise ApiError(
            403,
            f"a web page asks for {host[:100]!r}: without a token only localhost and loopback "
            "addresses may be written to from pages; set POD_TUNER_TOKEN, or use `pod-attn tuner`",
        )


def _name(host: str) -> str:
    """A Host header without its port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _require_token(request: Request, token: str) -> None:
    given = request.headers.get("authorization", "")
    expected = f"Bearer {token}"
    if token and not hmac.compare_digest(given.encode(), expected.encode()):
        raise ApiError(
            401,
            "writing needs the tuner's token: Authorization: Bearer <POD_TUNER_TOKEN>",
            {"WWW-Authenticate": "Bearer"},
        )
