"""Dashboard, alerts and scraping: every query parses, and what it asks for is exported."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import prometheus_client
import promql_parser as promql
import pytest
import yaml
from deployment_files import DEPLOYMENTS, ROOT, Doc, compose
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from pod_integrate.engines.sglang import metrics
from pod_integrate.engines.sglang.metrics import BATCHES, EVENTS
from tuner.http.metrics import HttpMetrics, render
from tuner.view import documents

GRAFANA, PROMETHEUS = DEPLOYMENTS / "grafana", DEPLOYMENTS / "prometheus"
RECORDED = ROOT / "tests" / "tuner" / "data" / "page_overview.json"
# Prometheus' own, and what Grafana fills in before it asks.
GIVEN = {"up"}
VARIABLES = {"$__rate_interval": "5m", "$server": ".*"}
LABELS_OF_SCRAPING = {"instance", "job", "le"}


def dashboard() -> Doc:
    found: Doc = json.loads((GRAFANA / "dashboards" / "pod-attention.json").read_text())
    return found


def panels() -> list[Doc]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[Doc]:
    text = (PROMETHEUS / "rules.yaml").read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    found += [rule["expr"] for rule in rules()]
    for name, value in VARIABLES.items():
        found = [query.replace(name, value) for query in found]
    return found


def nodes(query: str) -> Iterator[Any]:
    """Every part of a parsed query."""
    left: list[Any] = [promql.parse(query)]
    while left:
        node = left.pop()
        yield node
        parts = (getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector"))
        left += [part for part in parts if part is not None]
        left += getattr(node, "args", ())


def selectors(query: str) -> list[promql.VectorSelector]:
    """Every metric that it asks for."""
    return [node for node in nodes(query) if isinstance(node, promql.VectorSelector)]


def grouped(query: str) -> set[str]:
    """Labels that its sums keep."""
    sums = [node for node in nodes(query) if isinstance(node, promql.AggregateExpr)]
    return {label for node in sums if node.modifier for label in node.modifier.labels}


def exported() -> dict[str, set[str]]:
    """What the tuner's /metrics has, with labels, of a busy tuner."""
    overview = msgspec.json.decode(RECORDED.read_bytes(), type=documents.Overview)
    http = HttpMetrics()
    http.count("/metrics", "GET", 200)
    families = text_string_to_metric_families(render(overview, http).decode())
    samples = [sample for family in families for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples}


def sglangs() -> set[str]:
    """Names of SGLang's own metrics, read without importing it."""
    found = importlib.util.find_spec("sglang")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("sglang is not installed: its metrics are not checked")
    place = Path(found.submodule_search_locations[0]) / "srt" / "observability"
    return set(re.findall(r'"(sglang:\w+)"', (place / "metrics_collector.py").read_text()))


def test_every_query_parses_and_a_wrong_one_would_not() -> None:
    assert len(queries()) > 30
    for query in queries():
        promql.parse(query)
    with pytest.raises(ValueError, match="right parenthesis"):
        promql.parse(queries()[0] + ")")


def test_every_metric_and_label_is_exported_by_the_one_it_names() -> None:
    ours: dict[str, set[str]] = {f"{BATCHES}_total": {"kind"}, f"{EVENTS}_total": {"event"}}
    known = exported() | ours
    theirs = sglangs()
    for query in queries():
        names = [selector.name or "" for selector in selectors(query)]
        assert names and all(names), query
        labels = set(LABELS_OF_SCRAPING)
        for name in names:
            if name.startswith("sglang:"):
                assert name in theirs or name.removesuffix("_bucket") in theirs, name
            else:
                assert name in known or name in GIVEN, name
                labels |= known.get(name, set())
        asked = {m.name for s in selectors(query) for m in s.matchers.matchers}
        assert asked | grouped(query) <= labels, query


def test_legends_and_columns_name_labels_of_their_query() -> None:
    known = exported() | {f"{BATCHES}_total": {"kind"}, f"{EVENTS}_total": {"event"}}
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            named = [selector.name or "" for selector in selectors(query)]
            labels = {label for name in named for label in known.get(name, ())}
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = [node for node in nodes(query) if isinstance(node, promql.AggregateExpr)]
            assert shown <= (grouped(query) if kept else labels), (panel["title"], shown)


def test_alarms_are_there_from_the_start_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    make = functools.partial(prometheus_client.Counter, registry=registry)
    monkeypatch.setattr(metrics, "_counter", lambda name, text, label: make(name, text, [label]))
    metrics.Metrics(enabled=True, reports=False).count_batch("hybrid")
    events = {
        sample.labels["event"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"{EVENTS}_total" and sample.value == 0
    }
    assert events == set(metrics.ALARMS)
    (critical,) = (rule for rule in rules() if rule["labels"]["severity"] == "critical")
    (asked,) = (m.value for s in selectors(critical["expr"]) for m in s.matchers.matchers)
    assert set(asked.split("|")) == events
    # Of the ranks that run a step together one counts it.
    assert f"{BATCHES}_total" not in {s.name for f in registry.collect() for s in f.samples}


def test_panels_lie_side_by_side_and_ask_the_chosen_source() -> None:
    document = dashboard()
    variables = {variable["name"] for variable in document["templating"]["list"]}
    assert variables == {"datasource", "server"}
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    for panel in panels():
        assert panel["description"] and panel["datasource"]["uid"] == "${datasource}"


def test_compose_mounts_what_grafana_and_prometheus_are_told_to_read() -> None:
    services = compose()["services"]
    mounts = dict(
        v.split(":")[:2] for s in ("grafana", "prometheus") for v in services[s]["volumes"]
    )
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/pod-attention.yaml").read_text())
    assert provider["providers"][0]["options"]["path"] == mounts["./grafana/dashboards"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (GRAFANA / "dashboards" / Path(home).name).exists()
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert set(services["grafana"]["networks"]) & set(services["prometheus"]["networks"])
    (config,) = (word for word in services["prometheus"]["command"] if "config.file" in word)
    name = Path(config.split("=")[1])
    assert str(name.parent) == mounts["./prometheus"] and (PROMETHEUS / name.name).exists()


def test_what_is_scraped_are_services_on_their_ports() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    services = compose()["services"]
    targets = [t for job in config["scrape_configs"] for t in job["static_configs"][0]["targets"]]
    assert len(targets) == 3
    for target in targets:
        service, port = target.split(":")
        assert services[service]["ports"][0].endswith(f":{port}")
        assert set(services[service].get("networks", ["serving"])) & set(
            services["prometheus"]["networks"]
        )
        # SGLang exports nothing unless it is told to.
        assert service == "tuner" or "--enable-metrics" in services[service]["command"][-1]
    for name in config["rule_files"]:
        assert (PROMETHEUS / name).exists()


def test_alerts_say_what_is_wrong_and_what_it_means() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules()) >= 6
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
