"""Buckets that one group's live steps were of lately, as its tuner is told of them."""

from __future__ import annotations

from collections.abc import Container

from pod_integrate.live.experiments import MOST_SEEN, Seen
from pod_integrate.terms.experiment import MAX_BUCKETS, SeenBucket
from pod_integrate.terms.keys import Bucket

HALF_LIFE_SECONDS = 5.0


class Lately:
    """Counts fade by half every few seconds; the lightest buckets go first."""

    def __init__(self) -> None:
        self._seen: dict[Bucket, Seen] = {}
        self._faded = 0.0

    def add(self, seen: dict[Bucket, Seen], now: float) -> None:
        """Steps since the last call; `now` in seconds."""
        if now - self._faded >= HALF_LIFE_SECONDS:
            self._faded = now
            self._fade()
        for bucket, new in seen.items():
            before = self._seen.get(bucket)
            self._seen[bucket] = new._replace(steps=new.steps + (before.steps if before else 0))
        if len(self._seen) > MOST_SEEN:
            heaviest = sorted(self._seen, key=lambda bucket: -self._seen[bucket].steps)
            self._seen = {bucket: self._seen[bucket] for bucket in heaviest[:MOST_SEEN]}

    def get(self, bucket: Bucket) -> Seen | None:
        """What was seen of one bucket."""
        return self._seen.get(bucket)

    def offers(self, busy: Container[str]) -> list[SeenBucket]:
        """The heaviest buckets, those left out whose names are `busy`."""
        free = [bucket for bucket in self._seen if str(bucket) not in busy]
        free.sort(key=lambda bucket: -self._seen[bucket].steps)
        return [_offer(bucket, self._seen[bucket]) for bucket in free[:MAX_BUCKETS]]

    def _fade(self) -> None:
        """What was seen counts half, and not at all in the end."""
        self._seen = {
            bucket: seen._replace(steps=seen.steps // 2)
            for bucket, seen in self._seen.items()
            if seen.steps > 1
        }


def _offer(bucket: Bucket, seen: Seen) -> SeenBucket:
    captured = bool(seen.tiles)
    return SeenBucket(bucket=str(bucket), steps=seen.steps, captured=captured, tiles=seen.tiles)
