"""Prometheus text from the overview and from what HTTP counted."""

from __future__ import annotations

from collections.abc import Iterator

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from tuner.view import documents

_TOTALS = {
    "messages": "trace messages taken",
    "records": "traced steps taken",
    "steps_seen": "steps that servers ran",
    "steps_dropped": "traced steps that servers lost",
    "hybrid_steps": "traced steps with prefill and decode work",
    "trials": "configs tried",
    "pruned": "configs given up early",
    "pairs": "interleaved pairs measured",
    "promotions": "configs promoted",
    "rollbacks": "promotions taken back",
    "alerts": "decisions that a person should look at",
}
# Verbs only: a client may send any method name, and each one would be a series of its own.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpMetrics:
    """Counts answers since this process started."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}

    def count(self, route: str, method: str, status: int) -> None:
        """One answer."""
        key = (route, method if method in _METHODS else "other", str(status))
        self._counts[key] = self._counts.get(key, 0) + 1

    def family(self) -> Metric:
        """As a Prometheus counter."""
        family = CounterMetricFamily(
            "pod_tuner_http_requests", "HTTP answers", labels=["route", "method", "code"]
        )
        for key, value in sorted(self._counts.items()):
            family.add_metric(list(key), value)
        return family


class _OverviewCollector(Collector):
    def __init__(self, overview: documents.Overview, http: HttpMetrics) -> None:
        self._overview, self._http = overview, http

    def collect(self) -> Iterator[Metric]:
        tuner, totals = self._overview.tuner, self._overview.totals
        yield _info(tuner)
        yield _gauge("uptime_seconds", "time since the core started", tuner.uptime_s)
        for name, error in (("storage", tuner.storage_error), ("archive", tuner.archive_error)):
            failing = error is not None
            yield _gauge(f"{name}_failing", f"1 while the {name} takes no writes", float(failing))
        yield _gauge("archive_bytes", "size of the trace archive", tuner.archive_bytes)
        yield from (
            CounterMetricFamily(f"pod_tuner_{name}", text, value=getattr(totals, name))
            for name, text in _TOTALS.items()
        )
        yield from self._tables()
        yield from self._buckets()
        yield self._workers(tuner)
        yield self._http.family()

    def _tables(self) -> Iterator[Metric]:
        labels = ["geometry", "device", "build"]
        version = GaugeMetricFamily("pod_tuner_table_version", "table in force", labels=labels)
        entries = GaugeMetricFamily("pod_tuner_table_entries", "buckets in it", labels=labels)
        for table in self._overview.tables:
            names = [getattr(table, name) for name in labels]
            version.add_metric(names, table.version)
            entries.add_metric(names, table.entries)
        yield from (version, entries)

    def _buckets(self) -> Iterator[Metric]:
        labels = ["geometry", "device", "build", "bucket"]
        for field, text in (
            ("time_share", "share of attention time, decayed"),
            ("speedup", "default time / promoted config's time, median over steps"),
            ("lower_bound", "lower confidence bound of that speed-up"),
            ("expected_saving_share", "share of attention time that its promotion saves"),
            ("least_saving_share", "the same at the lower bound"),
        ):
            family = GaugeMetricFamily(f"pod_tuner_bucket_{field}", text, labels=labels)
            for bucket in self._overview.buckets:
                value = getattr(bucket, field)
                if value is not None:
                    family.add_metric([getattr(bucket, name) for name in labels], value)
            yield family

    def _workers(self, tuner: documents.TunerState) -> Metric:
        family = GaugeMetricFamily("pod_tuner_workers", "measuring workers", labels=["state"])
        for state in ("idle", "measuring"):
            family.add_metric([state], sum(w.state == state for w in tuner.workers))
        return family


def render(overview: documents.Overview, http: HttpMetrics) -> bytes:
    """Text exposition of one overview document and the HTTP counters."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_OverviewCollector(overview, http))
    return prometheus_client.generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"pod_tuner_{name}", text, value=value)


def _info(tuner: documents.TunerState) -> Metric:
    family = GaugeMetricFamily(
        "pod_tuner_info", "always 1", labels=["version", "storage", "host_mode"]
    )
    family.add_metric([tuner.version, tuner.storage.split()[0], tuner.host_mode], 1)
    return family
