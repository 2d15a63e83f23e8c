"""Texts and examples of the OpenAPI document, one dict per route."""

from __future__ import annotations

from typing import Any

import msgspec

from pod_integrate.terms.trace import TraceMessage
from tuner.http.schemas import reference
from tuner.messages import RecheckPairs
from tuner.view import documents

ABOUT = """
Learns from the hybrid batches that servers really run which attention config is fastest for each
kind of batch, and hands the answers back as versioned tables.

A server needs two calls: `POST /v1/traces` every few seconds and `GET /v1/table` with
`If-None-Match`. Both may fail at any time; a server then keeps what it has. One that compares
configs on its own steps asks for work at `POST /v1/experiments`. Everything is filed under three
printable keys:

- `geometry`: heads, head dim, dtypes, page size, window, cap: `q8kv4d64-fp32-kvfp32-s1-w-1-c0`
- `device`: what runs the op: `intel-xeon-processor:avx512:2` (name, capability, threads or SMs)
- `build`: hash of the kernel's sources and flags; times of another build say nothing

and a `bucket`, the coarse class of a batch: `p1k@8k+d64@4k` is 1K prompt tokens at mean context
8K beside 64 decoding requests at mean context 4K. Errors are `{"error": "..."}`.
"""

TAGS = [
    {"name": "servers", "description": "What a serving process calls."},
    {"name": "people", "description": "Read-only state for pages, scripts and Prometheus."},
    {"name": "operators", "description": "Orders; each is filed as a decision with a name."},
]

_JSON = "application/json"
_ERROR = {_JSON: {"schema": reference(documents.Failure)}}


def answers(
    document: type[msgspec.Struct] | None = None, status: int = 200, /, **errors: str
) -> dict[int | str, dict[str, Any]]:
    """Success with a document, and errors by `_<status>`."""
    answers: dict[int | str, dict[str, Any]] = {
        int(name.lstrip("_")): {"description": text, "content": _ERROR}
        for name, text in errors.items()
    }
    if document is not None:
        answers[status] = {
            "description": "success",
            "content": {_JSON: {"schema": reference(document)}},
        }
    return answers


EXAMPLE: dict[str, Any] = {
    "version": 1,
    "server": "web-1-4711",
    "sequence": 0,
    "geometry": "q8kv4d64-fp32-kvfp32-s1-w-1-c0",
    "device": "intel-xeon-processor:avx512:2",
    "build": "cpu-1a2b3c4d5e",
    "seen": 1,
    "dropped": 0,
    "table_version": 0,
    "configs": {
        "default": {
            "prefill": {"q_rows": 128, "kv_rows": 64, "stages": 2, "warps": 1},
            "decode": {"q_rows": 16, "kv_rows": 32, "stages": 2, "warps": 1},
            "ctas_per_sm": 2,
            "prefill_ctas": 0,
            "decode_ctas": 0,
            "max_prefill_waves": 2,
            "decode_split_tokens": 512,
            "virtual_decode": 1,
            "strategy": "fused",
        }
    },
    "records": [
        [1767225600.0, 17, [128, 1, 1], [512, 700, 90], 9100.0, 3200.0, 8, "default", "default"]
    ],
}

TRACES: dict[str, Any] = {
    "tags": ["servers"],
    "summary": "Hand in sampled steps",
    "description": (
        "One TraceMessage, as msgpack (`application/x-msgpack`) or JSON. Lengths and times only, "
        "never tokens. 202 means committed: the tuner may be killed right after and has it. A "
        "re-post of the same message answers `duplicate: true` and counts nothing twice. A record "
        "is `[time, step, q_lens, kv_lens, step_us, attention_us, layers, config, source]`."
    ),
    "responses": answers(
        documents.Taken,
        202,
        _400="malformed; the text names the first bad place",
        _401="the tuner wants its token",
        _403="from a web page of another site",
        _408="not here whole in 30 s",
        _413="over 1 MiB; post more often",
        _415="neither msgpack nor JSON",
        _503="the core or its database is away; post the same message again later",
    ),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {"schema": reference(TraceMessage), "example": EXAMPLE},
                "application/x-msgpack": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
}

TABLE: dict[str, Any] = {
    "tags": ["servers"],
    "summary": "Fetch the config table",
    "description": (
        "The promoted configs of one (geometry, device, build) with their evidence. Send the last "
        "`ETag` as `If-None-Match`: 304 means nothing changed. Versions only grow."
    ),
    "responses": {
        304: {"description": "the table of If-None-Match is still in force"},
        **answers(_404="nothing was promoted yet: defaults apply", _503="the core is away"),
    },
}

RECHECK: dict[str, Any] = {
    "tags": ["people"],
    "summary": "Doubt a promoted config",
    "description": (
        "Interleaved pairs `[default_us, config_us, step]` of a promoted config against the "
        "default on distinct steps of its bucket (`GET /v1/samples`), measured by whoever posts "
        "them. `trial` is that of the table entry's evidence, `step` a digest of the step's "
        "lengths. At 8 steps or more the answer is `kept` or `rolled back`, else `open`; `not "
        "promoted` when the table lists another config by now. Nothing is ever promoted by these."
    ),
    "responses": answers(
        documents.Judged,
        _400="malformed; the text names the first bad place",
        _401="the tuner wants its token",
        _403="from a web page of another site",
        _408="not here whole in 30 s",
        _413="over 1 MiB",
        _415="not JSON",
        _503="the core or its database is away",
    ),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {
                    "schema": reference(RecheckPairs),
                    "example": {
                        "geometry": "q8kv4d64-fp32-kvfp32-s1-w-1-c0",
                        "device": "intel-xeon-processor:avx512:2",
                        "build": "cpu-1a2b3c4d5e",
                        "bucket": "p128@512+d2@512",
                        "trial": 7,
                        "pairs": [[412.0, 371.5, "1f0c22ab"]],
                    },
                }
            },
        },
    },
}

OVERVIEW: dict[str, Any] = {
    "tags": ["people"],
    "summary": "Everything the page shows",
    "description": (
        "Servers, totals, tables, buckets by share of attention time, the latest decisions and a "
        "time series. null means not known. At most one second old."
    ),
    "responses": answers(documents.Overview, _503="the core is away"),
}

EVENTS: dict[str, Any] = {
    "tags": ["people"],
    "summary": "The overview as server-sent events",
    "description": (
        "Event `overview` with the document of /v1/overview, at most once a second and only when "
        "it changed; a comment line now and then keeps the connection alive."
    ),
    "responses": answers(_503="too many streams are open"),
}

TRIALS: dict[str, Any] = {
    "tags": ["people"],
    "summary": "Every trial of one bucket",
    "description": (
        "Configs tried, what they measured and why they were pruned or rejected. Times of a trial "
        "are those of its confirmation where it got that far, else of its screening; `steps` are "
        "the distinct traced steps that they were taken on."
    ),
    "responses": answers(documents.Trials, _503="the core is away"),
}

SAMPLES: dict[str, Any] = {
    "tags": ["people"],
    "summary": "Traced lengths of the heaviest buckets",
    "description": (
        "For replaying real traffic elsewhere: per bucket its share of attention time and the "
        "query and KV lengths of some of its steps. Lengths only, as everywhere."
    ),
    "responses": answers(documents.Samples, _503="the core is away"),
}

HEALTH: dict[str, Any] = {
    "tags": ["people"],
    "summary": "Whether the core and its database answer",
    "responses": answers(documents.Health, _503="they do not"),
}

METRICS: dict[str, Any] = {
    "tags": ["people"],
    "summary": "Prometheus metrics",
    "description": "Text exposition format; names start with `pod_tuner_`.",
    "responses": answers(_503="the core is away"),
}
