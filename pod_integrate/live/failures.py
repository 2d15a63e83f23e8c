"""What becomes of a tuner that dies, hangs or answers nonsense: a count and one log line a kind."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator

import httpx

from pod_integrate.errors import TableError, TraceError
from pod_integrate.redact import public_url, redact

logger = logging.getLogger(__name__)


class Failures:
    """Counts events of one thread that talks to a tuner, failures among them.

    url       of the tuner
    secrets   never shown
    on_event  called with (event, count), e.g. for metrics

    `counts` holds the sum of every event since the start.
    """

    def __init__(
        self, url: str, secrets: list[str], on_event: Callable[[str, int], None] | None
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.total = 0
        self._url, self._secrets, self._on_event = url, secrets, on_event
        self._logged: set[str] = set()

    def count(self, event: str, count: int = 1) -> None:
        """Something happened that is no failure."""
        self.counts[event] += count
        if self._on_event is not None:
            self._on_event(event, count)

    @contextlib.contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Errors of talking to the tuner end here, as failures of the kind `what`_...."""
        try:
            yield
        except httpx.HTTPStatusError as error:
            self.fail(f"{what}_http_{error.response.status_code}", "unexpected HTTP status")
        except httpx.TimeoutException as error:
            self.fail(f"{what}_timeout", type(error).__name__)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            self.fail(f"{what}_unreachable", f"{type(error).__name__}: {error}")
        except TableError as error:
            self.fail(f"{what}_rejected", f"{error}; the last good table stays in use")
        except TraceError as error:
            self.fail(f"{what}_rejected", str(error))
        except OSError as error:
            self.fail(f"{what}_not_saved", f"{error}; a restart will not find this table")

    def fail(self, kind: str, text: str) -> None:
        """Count a failure, and log the first of its kind."""
        self.total += 1
        self.count(kind)
        level = logging.DEBUG if kind in self._logged else logging.WARNING
        self._logged.add(kind)
        said = redact(text, *self._secrets)
        shown = public_url(self._url)
        logger.log(level, "tuner %s, %s: %s (serving goes on; logged once)", shown, kind, said)
