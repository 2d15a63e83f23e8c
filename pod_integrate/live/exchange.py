"""Exchange: the one thread that talks to the tuner, so that no step ever waits for it.

It posts recorded steps and polls for config tables. Whatever the tuner does - die, hang, answer
nonsense - becomes a count and one log line per kind; outbox.py has what becomes of a message then.
The last good table stays in use and is kept in a file, so that a restart without the tuner starts
tuned.

Every tensor-parallel rank runs its own and may switch tables some steps before another: a
config moves work around inside one rank's heads and changes answers by rounding at most, so
ranks need no agreement. Only one rank records and saves.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import httpx

from pod_integrate.live.client import TunerClient
from pod_integrate.live.failures import Failures
from pod_integrate.live.outbox import Outbox
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable, save_file
from pod_integrate.live.rounds import Rounds

logger = logging.getLogger(__name__)

# Events that are no failures.
POSTED, UPDATED = "records_posted", "table_updated"
# Steps of messages that were given up.
GIVEN_UP = "records_given_up"
# Messages per round and channel: a backlog is sent in steps, so that tables are polled between.
_MESSAGES_PER_ROUND = 8


@dataclasses.dataclass
class Channel:
    """One geometry's side of the exchange.

    active    table in use, which the exchange replaces
    recorder  steps to post; None on ranks that only follow the table
    file      where a good table is kept; None on ranks that only follow
    """

    active: ActiveTable
    recorder: Recorder | None = None
    file: Path | None = None
    _etag: str | None = dataclasses.field(default=None, repr=False)
    _body: bytes | None = dataclasses.field(default=None, repr=False)
    _outbox: Outbox = dataclasses.field(default_factory=Outbox, repr=False)


class Exchange:
    """Posts traces to and follows the tables of one tuner; see the module's docstring.

    url           base URL of the tuner
    server        stable printable id of this process, new after each start
    token         bearer token or None
    poll_seconds  pause between two rounds; failures double it up to a minute
    on_event      called with (event, count) from the exchange thread, e.g. for metrics; events
                  are POSTED, UPDATED and failure kinds such as post_unreachable
    transport     httpx transport, for tests

    `counts` holds the sum of every event since the start.
    """

    def __init__(
        self,
        url: str,
        *,
        server: str,
        token: str | None = None,
        poll_seconds: float = 5.0,
        on_event: Callable[[str, int], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.server = url, server
        self._channels: list[Channel] = []
        self._sequence = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = Failures(url, [token] if token else [], on_event)
        self.counts = self._failures.counts
        self._rounds = Rounds(self._failures, poll_seconds)
        self._client = TunerClient(url, token=token, transport=transport)

    def add(self, channel: Channel) -> None:
        """Serve one more geometry, from the next round on."""
        self._channels.append(channel)

    def start(self) -> None:
        """Start the thread; it is a daemon and never keeps the process alive."""
        self._thread = threading.Thread(target=self._run, name="pod-exchange", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread after one last post, waiting at most `timeout` seconds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def run_round(self) -> None:
        """Post and poll once for every channel; raises nothing, counts everything."""
        with self._rounds.one():
            try:
                for channel in list(self._channels):
                    self._post(channel)
                    self._poll(channel)
            except Exception:
                # The thread has to outlive our own bugs as well: they are counted and shown whole.
                self._failures.total += 1
                self._failures.count("internal_error")
                logger.exception("exchange with the tuner failed unexpectedly; it goes on")

    @property
    def pause_seconds(self) -> float:
        """Time until the next round."""
        return self._rounds.pause_seconds

    def _run(self) -> None:
        self.run_round()
        while not self._stop.wait(self.pause_seconds):
            self.run_round()
        if not self._rounds.failed_in_row:
            self.run_round()
        self._client.close()

    def _post(self, channel: Channel) -> None:
        if channel.recorder is None:
            return
        outbox = channel._outbox
        for _ in range(_MESSAGES_PER_ROUND):
            taken = outbox.next(channel.recorder, channel.active, self.server, self._sequence)
            if taken is None:
                return
            body, new = taken
            self._sequence += new
            if not self._send(outbox, body):
                return

    def _send(self, outbox: Outbox, body: bytes) -> bool:
        arrived = False
        with self._failures.watch("post"):
            try:
                self._client.post_traces(body)
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                answer = error.response if isinstance(error, httpx.HTTPStatusError) else None
                given_up = outbox.failed(answer.status_code if answer is not None else None)
                if given_up is not None:
                    self._failures.count(GIVEN_UP, given_up)
                raise
            self._failures.count(POSTED, outbox.sent())
            arrived = True
        return arrived  # noqa: RET504 (the context swallows what it counts)

    def _poll(self, channel: Channel) -> None:
        with self._failures.watch("table"):
            answer = self._client.get_table(channel.active, channel._etag)
            if answer is None:
                return
            # Remembered before the check: a bad table is fetched once, not every round.
            channel._etag = answer.etag
            if answer.body == channel._body:
                return
            channel._body = answer.body
            channel.active.offer(answer.body)
            self._failures.count(UPDATED)
            if channel.file is not None:
                save_file(channel.file, answer.body)
