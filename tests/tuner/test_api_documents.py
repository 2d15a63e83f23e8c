"""One definition of the API's documents: what is served, described and shown on the page agree."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
from api_support import KEYS, Served, post
from page_fixtures import RECORDED, TRIALS, empty_overview, recorded_overview, recorded_trials
from tuner_support import BUCKET, RecordedBench, drive, message, split_matters

from pod_integrate.terms.trace import encode
from tuner.http.schemas import components, reference
from tuner.view import documents

ROUTES: dict[str, type[documents.Document]] = {
    "/v1/overview": documents.Overview,
    "/v1/trials": documents.Trials,
    "/v1/samples": documents.Samples,
    "/healthz": documents.Health,
}


@pytest.fixture
def busy(served: Served, client: httpx.Client) -> httpx.Client:
    """A client of a tuner with something in every list of every document."""
    post(client, encode(message()))
    drive(served.tuner, RecordedBench(split_matters))
    served.tuner.housekeeping()
    return client


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_served_is_its_type_at_all_levels(busy: httpx.Client, path: str) -> None:
    body = busy.get(path, params=KEYS | {"bucket": BUCKET}).content
    document = msgspec.json.decode(body, type=ROUTES[path], strict=True)
    # Neither a field more nor one less, nor a value that was turned into another.
    assert msgspec.json.encode(document) == body
    lists = [value for value in msgspec.structs.astuple(document) if isinstance(value, list)]
    assert all(lists)


def test_the_pages_fixtures_are_documents() -> None:
    """At all levels: what is read by the types is all that the files say."""
    overview, trials = recorded_overview(), recorded_trials()
    assert overview == msgspec.json.decode(RECORDED.read_bytes())
    assert trials == msgspec.json.decode(TRIALS.read_bytes())
    assert {bucket["bucket"] for bucket in overview["buckets"]} >= set(trials)
    assert empty_overview()["buckets"] == []


def test_a_field_too_few_or_too_many_is_noticed() -> None:
    raw: Any = msgspec.json.decode(RECORDED.read_bytes())
    raw["decisions"][0].pop("steps")
    with pytest.raises(msgspec.ValidationError, match="missing required field `steps`"):
        msgspec.convert(raw["decisions"], list[documents.Decision])
    raw["buckets"][0]["more"] = 1
    with pytest.raises(msgspec.ValidationError, match="unknown field `more`"):
        msgspec.convert(raw["buckets"], list[documents.Bucket])


@pytest.mark.parametrize("path", ROUTES)
def test_openapi_describes_the_types_themselves(client: httpx.Client, path: str) -> None:
    described = client.get("/openapi.json").json()
    content = described["paths"][path]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"] == reference(ROUTES[path])
    schemas = described["components"]["schemas"]
    for name, schema in components().items():
        assert schemas[name] == schema
    for field in msgspec.structs.fields(ROUTES[path]):
        assert field.name in schemas[ROUTES[path].__name__]["properties"]
