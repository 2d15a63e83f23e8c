"""What a study tries before its sampler knows anything: good guesses, each a change of the default.

A guess changes what has been fastest so far, not the default: where the default's KV split is wrong
all tiles look alike until it is mended. On recorded times of an H200, searched from a default that
is 42 % off in one of four buckets, 24 trials leave 2.8 % in the mean instead of 6.8.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pod_integrate.devices.base import Choices
from pod_integrate.errors import ConfigError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket
from tuner.search import space
from tuner.search.axes import Array
from tuner.search.space import Within
from tuner.store.rows import Trial

Guess = tuple[str, PodConfig]
Worth = Callable[[Sequence[PodConfig]], Array | None]

# Origins of configs that are meant as they are.
WHOLE = frozenset({"default", "neighbour", "again"})


class Guesses:
    """A study's guesses that are left, and what has been fastest so far, which they change.

    first    as `first` has them
    default  the study's
    plain    gives a config the default's values of what does not matter to the study
    """

    def __init__(
        self,
        first: Iterable[Guess],
        default: PodConfig,
        choices: Choices,
        plain: Callable[[PodConfig], PodConfig],
    ) -> None:
        self._left = deque((origin, plain(config)) for origin, config in first)
        self._default, self._choices, self._plain = default, choices, plain
        # What took less than the default, with its value.
        self._faster: dict[PodConfig, float] = {}

    def __bool__(self) -> bool:
        return bool(self._left)

    def note(self, config: PodConfig, value: float | None) -> None:
        """A trial was told log(candidate time / default time); its latest value counts."""
        if value is not None and value < 0:
            self._faster[config] = value
        else:
            self._faster.pop(config, None)

    def hydrate(self, trials: Iterable[Trial]) -> None:
        """Leave out what was tried before a restart: by then it would change something else."""
        made = [(trial.origin, trial.config) for trial in trials]
        self._left = deque(guess for guess in self._left if not self._is_made(guess, made))

    def ahead(self, origin: str, configs: Iterable[PodConfig]) -> None:
        """Put these in front of all others."""
        self._left.extendleft((origin, config) for config in reversed(list(configs)))

    def next(self, within: Within, tried: set[PodConfig], worth: Worth) -> Guess | None:
        """The next one in a part of the space that was not tried; None when none is left there.

        worth  of configs, what is expected of each; None where nothing is, so that they keep turns
        """
        for guess in self._turns(worth):
            meant = self._meant(*guess)
            # What builds on tiles that are not allowed here is tried by itself.
            found = next((config for config in meant if within.allows(config)), None)
            if found is None and meant[0] not in tried:
                continue
            self._left.remove(guess)
            if found is not None and found not in tried:
                return guess[0], found
        return None

    def _turns(self, worth: Worth) -> Iterator[Guess]:
        """Those that are meant as they are, then the ones of which most is expected."""
        yield from [guess for guess in self._left if guess[0] in WHOLE]
        rest = [guess for guess in self._left if guess[0] not in WHOLE]
        expected = worth([self._meant(*guess)[0] for guess in rest]) if len(rest) > 1 else None
        if expected is not None:
            rest = [rest[number] for number in np.argsort(-expected, kind="stable")]
        yield from rest

    def _meant(self, origin: str, config: PodConfig) -> list[PodConfig]:
        """What to try for a guess, the best first."""
        if origin in WHOLE:
            return [config]
        best = min(self._faster, key=self._faster.__getitem__, default=self._default)
        onto = changed(best, config, self._default, self._choices)
        return [self._plain(onto), config]

    def _is_made(self, guess: Guess, made: Iterable[Guess]) -> bool:
        """Whether a trial of that origin has what the guess changes; of a whole one it is known."""
        origin, config = guess
        if origin in WHOLE:
            return False
        return any(
            origin == other
            and self._plain(changed(tried, config, self._default, self._choices)) == tried
            for other, tried in made
        )


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
