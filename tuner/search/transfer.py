"""What a study is taught: trials of the studies most like it, of one device.

A config that is good for one kind of steps is a good guess for the next kind. How good, the
surrogate finds out from the trials: of a bucket near by, of another geometry, of an older build. A
lesson is a guess and proves nothing; what it leads to is screened and confirmed like anything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np

from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.keys import Bucket, Geometry
from tuner.messages import StudyKey
from tuner.search.axes import Array, Known, Traffic, apart
from tuner.store.rows import Trial

# Studies that teach, and trials of each of them, the latest ones: old trials are of old traffic.
_TEACHERS, _TRIALS = 4, 48


def teachers(key: StudyKey, studies: Iterable[StudyKey]) -> list[StudyKey]:
    """The studies of the key's device that are most like it, the nearest first; without itself."""
    own, near = traffic_of(key, key), list[StudyKey]()
    places: list[Array] = []
    for other in dict.fromkeys(studies):
        traffic = traffic_of(other, key) if other.device == key.device and other != key else None
        if traffic is not None:
            near.append(other)
            places.append(_place(traffic))
    if own is None or not near:
        return []
    order = np.argsort(apart(_place(own), np.array(places)), kind="stable")
    return [near[number] for number in order[:_TEACHERS]]


def lessons(
    key: StudyKey, studies: Iterable[StudyKey], trials_of: Callable[[StudyKey], Iterable[Trial]]
) -> list[Known]:
    """What the teachers of `key` among these measured, the nearest one's latest trial first."""
    found = []
    for teacher in teachers(key, studies):
        traffic = traffic_of(teacher, key)
        if traffic is None:
            continue
        told = [(t.config, t.value) for t in trials_of(teacher) if t.value is not None]
        found += [Known(config, value, traffic) for config, value in told[: -_TRIALS - 1 : -1]]
    return found


def traffic_of(key: StudyKey, to: StudyKey) -> Traffic | None:
    """What a study's trials were measured on, as seen from another; None for a malformed key."""
    known = _traffic(key.geometry, key.bucket)
    if known is None or key.build == to.build:
        return known
    return known._replace(build=key.build)


# A new bucket looks at the same few hundred studies as the one before.
@functools.lru_cache(maxsize=4096)
def _traffic(geometry: str, bucket: str) -> Traffic | None:
    try:
        return Traffic(Bucket.parse(bucket), Geometry.parse(geometry))
    except PodAttentionError:
        return None


@functools.lru_cache(maxsize=4096)
def _place(traffic: Traffic) -> Array:
    return traffic.place()
