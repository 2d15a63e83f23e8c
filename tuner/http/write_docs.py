"""Texts and examples of experiments and orders in the OpenAPI document; see docs.py."""

from __future__ import annotations

from typing import Any

import msgspec

from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import Experiment, ExperimentAsk, ExperimentReport
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable, Evidence, TableEntry
from tuner.http.docs import EXAMPLE, answers
from tuner.http.schemas import reference
from tuner.orders import BucketOrder, Order, PinOrder, PromoteOrder, ServerOrder, TableOrder
from tuner.view import documents

_JSON = "application/json"
_KEYS = {
    "geometry": "q8kv4d64-fp32-kvfp32-s1-w-1-c0",
    "device": "intel-xeon-processor:avx512:2",
    "build": "cpu-1a2b3c4d5e",
}
_TABLE = ConfigTable(
    version=4,
    geometry=Geometry.parse(_KEYS["geometry"]),
    device=DeviceKey.parse(_KEYS["device"]),
    build=_KEYS["build"],
    updated="2026-01-01T00:00:00.000Z",
    entries={
        Bucket.parse("p128@512+d2@512"): TableEntry(
            PodConfig.from_dict(EXAMPLE["configs"]["default"] | {"decode_split_tokens": 256}),
            Evidence(
                pairs=40,
                steps=10,
                median_speedup=1.12,
                lower_bound=1.05,
                confidence=0.98,
                method="replay",
                measured_at="2026-01-01T00:00:00.000Z",
                build=_KEYS["build"],
                trial=7,
            ),  # fmt: skip
        )
    },
)
_BUCKET = _KEYS | {"bucket": "p128@512+d2@512", "who": "ada", "why": "slower at night"}

_EXPORTED: dict[str, Any] = msgspec.json.decode(_TABLE.to_json(checksum=True))


def _route(
    tag: str, summary: str, description: str, body: type[msgspec.Struct], example: dict[str, Any],
    responses: dict[int | str, dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    content = {_JSON: {"schema": reference(body), "example": example}}
    return {
        "tags": [tag],
        "summary": summary,
        "description": description,
        "responses": responses,
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


def _order(
    summary: str, description: str, body: type[msgspec.Struct], example: dict[str, Any], *,
    most: str = "1 MiB",
) -> dict[str, Any]:  # fmt: skip
    responses = answers(
        documents.Obeyed,
        _400="malformed; the text names the first bad place",
        _401="the tuner wants its token",
        _403="from a web page of another site",
        _409="refused; the text says why",
        _408="not here whole in 30 s",
        _413=f"over {most}",
        _415="not JSON",
        _503="the core or its database is away",
    )
    return _route("operators", summary, description, body, example, responses)


_REFUSED = {
    "_400": "malformed; the text names the first bad place",
    "_401": "the tuner wants its token",
    "_403": "from a web page of another site",
    "_408": "not here whole in 30 s",
    "_413": "over 1 MiB",
    "_415": "neither msgpack nor JSON",
    "_503": "the core or its database is away",
}

EXPERIMENTS = _route(
    "servers",
    "Ask for two configs to compare on live steps",
    "Layers of one step alternate between `baseline` and `candidate`; a step is one pair. 204: "
    "there is nothing to compare, or the server is paused. The experiment is the server's until "
    "`seconds` after its last report. `captured` buckets get candidates of their `tiles` only.",
    ExperimentAsk,
    {"version": 1, "server": "web-1-4711", **_KEYS}
    | {"buckets": [{"bucket": "p128@512+d2@512", "steps": 90, "attention_us": 81000.0}]},
    {204: {"description": "nothing to compare now"}, **answers(Experiment, **_REFUSED)},
)

REPORT = _route(
    "servers",
    "Report on an experiment, or on a part of it",
    "Pairs are `[baseline_us, candidate_us, step]`, one a step; those of a step that the phase has "
    "already are ignored, so a re-post is harmless. `taken: false`: the experiment is not (any "
    "more) wanted from this server. `done`: no more steps are of use. `mismatch` and `failed` bar "
    "the config everywhere; `infeasible` (it could not be prepared here) prunes it in its bucket.",
    ExperimentReport,
    {"version": 1, "server": "web-1-4711", "id": "5f0c", "outcome": "measured"}
    | {"pairs": [[412.0, 371.5, "1f0c22ab"]], "layers": 8, "done": False},
    answers(documents.Noted, **_REFUSED),
)

PAUSE = _order(
    "Stop experiments",
    "No new work for a server or a worker, by its id; `*`, or none named, stops all of them. What "
    "runs ends with its next report. Tables stay in force. Outlives a restart.",
    ServerOrder,
    {"server": "web-1-4711", "who": "ada", "why": "incident 12"},
)

KILL = _order(
    "The default everywhere",
    "Every table is served without entries from now on, so that servers run the default within "
    "their next poll, and everybody is paused. What was in force comes back when `*` is resumed. "
    "Pins do not matter. Outlives a restart.",
    Order,
    {"who": "ada", "why": "incident 12"},
)

RESUME = _order(
    "End a pause",
    "`*`, or none named, ends all pauses, and what a kill order did.",
    ServerOrder,
    {"server": "web-1-4711", "who": "ada"},
)

PROMOTE = _order(
    "Put a trial in force",
    "Its pairs against the default on at least 8 distinct steps become the evidence, whatever they "
    "say; with fewer it is confirmed next. Like every promotion it is watched, and rolled back "
    "when it is slower than the default.",
    PromoteOrder,
    _BUCKET | {"trial": 7},
)

TABLE = _order(
    "Put the configs of a table in force",
    "`table` is the document that `pod-attn table export` writes, checksum included, of this "
    "device and kernel build. Buckets whose configs differ get them as one new version; pinned "
    "ones, and configs that failed here, stay as they are. Like every promotion they are watched, "
    "and rolled back when they are slower than the default. At most 4 MiB.",
    TableOrder,
    {"who": "ada", "why": "proven on another machine", "table": _EXPORTED},
    most="4 MiB",
)

PIN = _order(
    "Keep what is in force",
    "Nothing is measured or changed in a bucket, be it a promoted config or the default, until "
    "`pinned: false`. Only a config that fails is taken out all the same.",
    PinOrder,
    _BUCKET | {"pinned": True},
)

ROLL_BACK = _order(
    "Put the default in force",
    "The promoted config of a bucket goes, and is not promoted there again.",
    BucketOrder,
    _BUCKET,
)
