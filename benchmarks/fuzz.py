"""Requests that no client should send, drawn from the service's own OpenAPI document.

For tests and `pod-attn bench tuner-fuzz`: an endpoint or parameter that is added is fuzzed without
being named here. Answers of 500 and above count as failures.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import msgspec
from fastapi import FastAPI

_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "NONSENSE")
_TYPES = (
    "application/x-msgpack", "application/json", "application/json; charset=utf-16",
    "text/plain", "", "multipart/form-data", "application/x-msgpack;;=", "\x7f",
)  # fmt: skip
_NUMBERS = (
    *(0, 1, -1, 16, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 53, 1 << 62),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), 0.5, -0.0, 1e308),
    *(float("inf"), float("-inf"), float("nan")),
)
_TEXTS = (
    *("", "x", "0", "a" * 200, "a" * 70_000, "\0", "a\nb", "caf\u00e9", "\u202e", "\U0001f600"),
    *("q8kv4d64-fp32-kvfp32-s1-w-1-c0", "q0kv0d0-fp32-kvfp32-s0-w0-c0", "q7kv3d1-bf16-kvfp32-s9"),
    *("some-cpu:avx2:4", "x:sm90:9999", "x:abc:1", "p1k@8k+d64@4k", "d1@1", "empty", "p3@9"),
    *("../../etc/passwd", "' OR 1=1 --", "%00", "{{7*7}}", "<script>", "nan", "null", "cpu-1"),
)


class Request(NamedTuple):
    """One request to send."""

    method: str
    path: str
    params: list[tuple[str, str]]
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Fuzzer:
    """Draws requests; the same seed draws the same ones.

    document  the service's OpenAPI document
    message   a valid trace message as plain data, which is bent; other routes have an example
    """

    def __init__(self, document: dict[str, Any], message: Any, seed: int) -> None:
        self._random = random.Random(seed)
        self._message = message
        self._routes = [
            (method.upper(), path, operation)
            for path, item in sorted(document["paths"].items())
            for method, operation in sorted(item.items())
        ]

    def draw(self) -> Request:
        """The next request."""
        pick = self._random
        # Messages come in by one route of many and are most of what can go wrong.
        bodies = [route for route in self._routes if "requestBody" in route[2]]
        method, path, operation = pick.choice(bodies if pick.random() < 0.5 else self._routes)
        names = [parameter["name"] for parameter in operation.get("parameters", [])]
        # httpx sends URLs of 64 KiB at most.
        params = [(name, self._text()[:6000]) for name in names if pick.random() < 0.95]
        if pick.random() < 0.05:
            method, path = pick.choice(_METHODS), path + pick.choice(("", "/", "//x", "/%2e%2e"))
        kind, body = self._body(self._valid(operation)) if "requestBody" in operation else ("", b"")
        path = path.replace("{id}", quote(self._text()[:300], safe=""))
        headers = [(b"content-type", kind.encode())] if kind else []
        if pick.random() < 0.2:
            value = self._text()[:500].replace("\n", "").replace("\0", "")
            name = pick.choice((b"if-none-match", b"authorization", b"accept", b"content-encoding"))
            headers.append((name, value.encode()))
        return Request(method, path, params, headers, body)

    def _text(self) -> str:
        text = self._random.choice(_TEXTS)
        return text if self._random.random() < 0.9 else "".join(self._random.sample(_TEXTS, 2))

    def _valid(self, operation: dict[str, Any]) -> Any:
        content = operation["requestBody"]["content"]["application/json"]
        traces = content["schema"]["$ref"].endswith("/TraceMessage")
        return self._message if traces else content["example"]

    def _body(self, valid: Any) -> tuple[str, bytes]:
        bent = copy.deepcopy(valid)
        for _ in range(self._random.choice((0, 1, 1, 1, 2, 4))):
            self._bend(bent)
        as_json = self._random.random() < 0.4
        kind = _TYPES[as_json] if self._random.random() < 0.9 else self._random.choice(_TYPES)
        body = json.dumps(bent).encode() if as_json else msgspec.msgpack.encode(bent)
        if self._random.random() < 0.3:
            body = self._garble(body)
        return kind, body

    def _bend(self, node: Any) -> None:
        """Replace, drop or double one value somewhere inside."""
        while isinstance(node, dict | list) and node:
            place = self._random.choice(list(node) if isinstance(node, dict) else range(len(node)))
            child = node[place]
            if isinstance(child, dict | list) and child and self._random.random() < 0.7:
                node = child
                continue
            if self._random.random() < 0.1:
                del node[place]
            elif isinstance(node, list) and self._random.random() < 0.2:
                node *= self._random.choice((2, 300))
            else:
                node[place] = self._value()
            return

    def _value(self) -> Any:
        return self._random.choice((
            self._random.choice(_NUMBERS), self._random.choice(_NUMBERS), self._text(), None, True,
            [], {}, [[]] * 3, {"a": {"b": []}}, [self._random.choice(_NUMBERS)] * 5000,
        ))  # fmt: skip

    def _garble(self, body: bytes) -> bytes:
        garbled = bytearray(body)
        for _ in range(self._random.choice((1, 2, 8))):
            at = self._random.randrange(len(garbled) + 1)
            junk = bytes(self._random.choices(range(256), k=self._random.choice((1, 4, 5000))))
            garbled[at : at + self._random.choice((0, 1, 10))] = junk
        return bytes(garbled[: self._random.choice((len(garbled), len(garbled) // 2))])


class Failure(NamedTuple):
    """A request that the service failed at."""

    status: int
    request: Request


async def run(
    app: FastAPI, message: Any, *, requests: int, seed: int
) -> tuple[Counter[int], list[Failure]]:
    """Send requests into an app in this process; returns answers by status, and failures."""
    # Event streams end at once then: they would never end otherwise.
    app.state.feed.stop()
    fuzzer = Fuzzer(app.openapi(), message, seed)
    counts: Counter[int] = Counter()
    failures = []
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://tuner") as client:
        for _ in range(requests):
            request = fuzzer.draw()
            answer = await client.request(
                request.method, request.path, params=tuple(request.params),
                headers=request.headers, content=request.body,
            )  # fmt: skip
            counts[answer.status_code] += 1
            if answer.status_code >= 500:
                failures.append(Failure(answer.status_code, request))
    return counts, failures


def summary(failures: Sequence[Failure]) -> list[str]:
    """One line for each kind of failure."""
    return sorted({f"{f.status} {f.request.method} {f.request.path}" for f in failures})
