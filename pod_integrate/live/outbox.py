"""Outbox: one geometry's steps on their way to the tuner, a message at a time.

A message waits until the tuner has it, is repeated unchanged while that may help, and is given up
when the tuner refuses it or took it too often in vain; the next one tells what went with it.
"""

from __future__ import annotations

from typing import NamedTuple

from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.trace import WIRE_VERSION, TraceMessage, encode
from pod_integrate.terms.wire import MAX_STEPS

# Rounds that one message is tried in; with pauses that double, some ten minutes.
MAX_ATTEMPTS = 12
# Answers of the 400s that say "later"; a repeat of the same message cannot change any other one.
_LATER = frozenset({408, 425, 429})


class _Message(NamedTuple):
    body: bytes
    seen: int
    dropped: int
    records: int


class Outbox:
    """See the module; for one thread."""

    def __init__(self) -> None:
        self._waiting: _Message | None = None
        self._attempts = 0
        self._lost_seen = self._lost_records = 0

    def next(
        self, recorder: Recorder, active: ActiveTable, server: str, sequence: int
    ) -> tuple[bytes, bool] | None:
        """The body to post now, and whether it is a new message, which takes `sequence`.

        None: nothing happened since the last one.
        """
        if self._waiting is not None:
            return self._waiting.body, False
        drained = recorder.drain()
        if not drained.seen and not drained.records:
            return None
        seen = min(drained.seen + self._lost_seen, MAX_STEPS)
        dropped = min(drained.dropped + self._lost_records, MAX_STEPS)
        self._lost_seen = self._lost_records = 0
        message = TraceMessage(
            version=WIRE_VERSION,
            server=server,
            sequence=sequence,
            geometry=str(active.geometry),
            device=str(active.device),
            build=active.build,
            seen=seen,
            dropped=dropped,
            table_version=active.version,
            configs={key: config.to_dict() for key, config in drained.configs.items()},
            records=drained.records,
        )
        self._waiting = _Message(encode(message), seen, dropped, len(drained.records))
        self._attempts = 0
        return self._waiting.body, True

    def sent(self) -> int:
        """The tuner has the message; returns its records."""
        assert self._waiting is not None
        records, self._waiting = self._waiting.records, None
        return records

    def failed(self, status: int | None) -> int | None:
        """Posting failed, with an HTTP status or without an answer.

        Returns the records given up; None when the message will be repeated.
        """
        assert self._waiting is not None
        self._attempts += 1
        refused = status is not None and status < 500 and status not in _LATER
        if not refused and self._attempts < MAX_ATTEMPTS:
            return None
        self._lost_seen += self._waiting.seen
        self._lost_records += self._waiting.dropped + self._waiting.records
        return self.sent()
