"""What a study tries before its sampler knows anything: good guesses, each a change of the default.

A guess changes what has been fastest so far, not the default: where the default's KV split is wrong
all tiles look alike until it is mended. On recorded times of an H200, searched from a default that
is 42 % off in one of four buckets, 24 trials leave 2.8 % in the mean instead of 6.8.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable

from pod_integrate.devices.base import Choices
from pod_integrate.errors import ConfigError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket
from tuner.search import space

Guess = tuple[str, PodConfig]

# Origins of configs that are meant as they are.
WHOLE = frozenset({"default", "neighbour", "again"})


def first(
    default: PodConfig, choices: Choices, neighbours: Iterable[PodConfig], bucket: Bucket | None
) -> list[Guess]:
    """(origin, config) in the order in which they are tried.

    The default first: it is the A/A check of the measurement. Then what needs no build, the split
    before all. Buckets begin with different ones of the device's own.
    """
    change = dataclasses.replace
    split = default.decode_split_tokens or 512
    own = list(choices.first)
    turn = zlib.crc32(str(bucket).encode()) % max(1, len(own)) if bucket is not None else 0
    return [
        ("default", default),
        *(("neighbour", config) for config in neighbours),
        ("paper 1:1", change(default, prefill_ctas=1, decode_ctas=1)),
        ("finer split", change(default, decode_split_tokens=max(32, split // 4))),
        *own[turn:],
        *own[:turn],
        # Changes two things at once, which others had better not be built on.
        ("unsplit", change(default, decode_split_tokens=0, max_prefill_waves=0)),
    ]


def changed(best: PodConfig, guess: PodConfig, default: PodConfig, choices: Choices) -> PodConfig:
    """`best` with what `guess` changes of the default; one of another space as it is."""
    try:
        tried, mine, new = (space.encode(each, choices) for each in (best, default, guess))
    except ConfigError:
        return guess
    own = {name: value for name, value in new.items() if value != mine[name]}
    return space.decode(tried | own, default)
