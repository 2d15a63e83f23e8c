"""Prometheus counters on the server's own /metrics, where --enable-metrics is on."""

from __future__ import annotations

import functools
from typing import Any

from pod_integrate.engines.sglang.graph_guard import WRONG_GRAPHS
from pod_integrate.live.experimenter import MISMATCH
from pod_integrate.live.readiness import WRONG

# In the manner of SGLang's own `sglang:` metrics.
BATCHES = "pod:batches"
EVENTS = "pod:tuner_events"
# Events that are there from the start, with 0: an alert sees a series that grows, not one that is
# born with its first event.
ALARMS = (MISMATCH, WRONG, WRONG_GRAPHS)


class Metrics:
    """Counters of the backend; all methods do nothing when metrics are off.

    pod:batches_total{kind}        steps by kind: hybrid, prefill, decode, verify, empty; of the
                                   ranks that run a step together one counts it
    pod:tuner_events_total{event}  Exchange.counts: records_posted, table_updated, failures

    reports  whether this rank is the one
    """

    def __init__(self, *, enabled: bool, reports: bool) -> None:
        self._batches: Any = None
        self._events: Any = None
        if enabled:
            self._events = _counter(EVENTS, "What the exchange with the tuner did.", "event")
            for event in ALARMS:
                self._events.labels(event=event)
        if enabled and reports:
            self._batches = _counter(BATCHES, "Forward steps attended by POD.", "kind")

    def count_batch(self, kind: str) -> None:
        """Count one forward step."""
        if self._batches is not None:
            self._batches.labels(kind=kind).inc()

    def count_event(self, event: str, count: int) -> None:
        """Count what the exchange reports; called from its thread."""
        if self._events is not None:
            self._events.labels(event=event).inc(count)


@functools.cache
def _counter(name: str, text: str, label: str) -> Any:
    # Imported late: prometheus_client picks its multi-process files from an environment variable
    # that SGLang sets while it starts. Cached: a name can be registered once per process.
    from prometheus_client import Counter

    return Counter(name, text, [label])
