"""What the service tells beside the data: metrics, pages, documentation, health."""

from __future__ import annotations

import httpx
from api_support import KEYS, Served, post
from prometheus_client.parser import text_string_to_metric_families
from tuner_support import (
    BUCKET,
    STEPS,
    RecordedBench,
    drive,
    message,
    split_matters,
)

from pod_integrate.terms.trace import encode
from tuner.http.headers import HEADERS


def test_metrics_parse_and_agree_with_the_overview(served: Served, client: httpx.Client) -> None:
    post(client, encode(message()))
    drive(served.tuner, RecordedBench(split_matters))
    totals = client.get("/v1/overview").json()["totals"]
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    assert values[("pod_tuner_records_total",)] == totals["records"] == STEPS
    assert values[("pod_tuner_pairs_total",)] == totals["pairs"] > 0
    labels = sorted({**KEYS, "bucket": BUCKET}.items())
    assert values[("pod_tuner_bucket_lower_bound", *labels)] > 1
    posted = {"route": "/v1/traces", "method": "POST", "code": "202"}
    assert values[("pod_tuner_http_requests_total", *sorted(posted.items()))] == 1


def test_every_answer_carries_the_security_headers(client: httpx.Client) -> None:
    for path in ("/", "/docs", "/static/app.js", "/v1/overview", "/nowhere", "/v1/table"):
        answer = client.get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, path
    assert client.get("/nowhere").json() == {"error": "Not Found"}


def test_the_page_and_its_files_are_served(client: httpx.Client) -> None:
    assert "<title>" in client.get("/").text
    assert client.get("/static/app.js").status_code == 200
    assert client.get("/static/../api.py").status_code == 404
    assert client.get("/static/%2e%2e/api.py").status_code == 404


def test_openapi_lists_every_endpoint_and_docs_show_it_offline(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    expected = {
        "/v1/traces", "/v1/table", "/v1/overview", "/v1/events", "/v1/trials", "/v1/samples",
        "/v1/recheck", "/healthz", "/metrics", "/v1/experiments", "/v1/experiments/{id}/report",
        "/v1/pause", "/v1/resume", "/v1/kill", "/v1/promote", "/v1/pin", "/v1/rollback",
    }  # fmt: skip
    assert set(document["paths"]) == expected
    page = client.get("/docs").text
    assert all(path in page for path in expected)
    assert "http://" not in page and "https://" not in page


def test_the_documented_example_is_accepted(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/v1/traces"]["post"]["requestBody"]["content"]
    answer = client.post("/v1/traces", json=content["application/json"]["example"])
    assert answer.status_code == 202


def test_health_answers(client: httpx.Client) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
