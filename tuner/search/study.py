"""One bucket's search: an Optuna study in memory, rebuilt from our own trials after a restart.

Optuna's storages cost 30-240 ms a trial and its heartbeats do not cover ask and tell, so trials
live in our tables and Optuna only proposes. It is told log(candidate time / default time).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from pod_integrate.devices.base import Choices
from pod_integrate.devices.registry import target_of
from pod_integrate.errors import ConfigError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from tuner.search import guesses, space
from tuner.search.axes import Array, Known, Traffic
from tuner.search.guesses import Guesses
from tuner.search.space import ANY, Within
from tuner.search.surrogate import Lesson, SurrogateSampler
from tuner.store.rows import Trial

logger = logging.getLogger(__name__)

# Proposals slow down with history, and a bucket's old trials say little about today's traffic.
MAX_HISTORY = 200
_STARTUP_TRIALS = 10
_ASKS_PER_PROPOSAL = 64


class Proposal(NamedTuple):
    """A config to try; `infeasible` says why it must not be measured, empty when it may be."""

    config: PodConfig
    origin: str
    infeasible: str


class Study:
    """Proposes configs for one (geometry, device, bucket), none of them twice.

    trials      what is known from before, in order of number
    neighbours  configs promoted for other buckets, nearest first; tried early
    seed        of the sampler
    bucket      what does not matter to its steps stays as it is; where guesses begin: buckets
                that begin with others have more of them built, and tell each other what they found
    choices     what is worth trying; default the device's
    """

    def __init__(
        self,
        geometry: Geometry,
        device: DeviceKey,
        *,
        trials: Iterable[Trial],
        neighbours: Iterable[PodConfig],
        seed: int,
        bucket: Bucket | None = None,
        choices: Choices | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._geometry, self._target = geometry, target_of(device)
        self._choices = choices or self._target.choices(geometry)
        self.default = self._target.default_config(geometry)
        self._distributions = space.distributions(self._choices)
        self._numbers: dict[PodConfig, int] = {}
        sides = bucket.sides if bucket else "hybrid"
        self._rules = space.rules(sides, self.default, self._choices)
        traffic = Traffic(bucket, geometry).place() if bucket else None
        undrawn = {"tiles": self._choices.covered}
        self._sampler = SurrogateSampler(seed, _STARTUP_TRIALS, self._rules, traffic, undrawn)
        self._study = optuna.create_study(direction="minimize", sampler=self._sampler)
        first = guesses.first(self.default, self._choices, neighbours, bucket)
        self._guesses = Guesses(first, self.default, self._choices, self._plain)
        known = list(trials)
        self._guesses.hydrate(known)
        self._tried = {self._plain(trial.config) for trial in known}
        for trial in known[-MAX_HISTORY:]:
            self._hydrate(trial)
        # Parts of the space in which the sampler has found nothing new.
        self._exhausted: set[Within] = set()
        self._shunned: set[PodConfig] = set()
        self._is_taught = False

    def propose(self, within: Within = ANY) -> Proposal | None:
        """The next config of that part of the space, or None when the sampler finds nothing new.

        Infeasible ones are proposed too, so that the caller files them with their reason; Optuna
        has been told PRUNED by then.
        """
        guess = self._guesses.next(within, self._tried, self._worth)
        if guess is not None:
            origin, config = guess
            return self._offer(config, origin)
        if within in self._exhausted:
            return None
        for ordinal in range(_ASKS_PER_PROPOSAL):
            asked = self._ask(within, ordinal)
            if asked is None:
                return None
            config = self._plain(space.decode(asked.params, self.default))
            if config in self._tried:
                # Told PRUNED it would count as bad.
                self._study.tell(asked, state=TrialState.FAIL)
                continue
            self._numbers[config] = asked.number
            return self._offer(config, "sampler")
        self._exhausted.add(within)
        return None

    def shun(self, configs: Iterable[PodConfig]) -> None:
        """Never propose these."""
        self._shunned.update(map(self._plain, configs))
        self._tried |= self._shunned

    @property
    def expects(self) -> float | None:
        """What the last proposal was expected to gain, a logarithm; None while guesses are left."""
        return None if self._guesses else self._sampler.expects

    def learn(self, known: Iterable[Known]) -> None:
        """What other studies found, the ones most like this one first.

        With enough of its own geometry guesses are tried in the order in which they promise gains.
        Other geometries' bests are no ground to build on: none of them has a say in it.
        """
        lessons = [(each, lesson) for each in known for lesson in self._lessons(each)]
        self._sampler.learn([lesson for _, lesson in lessons])
        own = sum(each.traffic.geometry == self._geometry for each, _ in lessons)
        self._is_taught = own >= _STARTUP_TRIALS

    def _worth(self, configs: Sequence[PodConfig]) -> Array | None:
        """What the surrogate expects of guesses; None while too little was taught to tell."""
        if not self._is_taught:
            return None
        try:
            params = [space.encode(config, self._choices) for config in configs]
        except ConfigError:
            return None
        return self._sampler.promising(self._study, params)

    def _ask(self, within: Within, ordinal: int) -> optuna.Trial | None:
        """A trial of the sampler; where only some tiles are allowed these take turns."""
        if within.tiles is None:
            return self._sample({})
        names = within.tiles - self._choices.covered or within.tiles
        places = [space.fixed(name, self._choices) for name in sorted(names)]
        allowed = [place for place in places if place is not None]
        if not allowed:
            return None
        turn = (len(self._tried) + ordinal) % len(allowed)
        return self._sample(allowed[turn])

    def _sample(self, fixed: dict[str, Any]) -> optuna.Trial:
        self._sampler.fixed = fixed
        try:
            return self._study.ask(self._distributions)
        finally:
            self._sampler.fixed = {}

    def tell(self, config: PodConfig, value: float | None) -> None:
        """Report log(candidate time / default time); None: it could not be measured (PRUNED)."""
        self._guesses.note(config, value)
        number = self._numbers.pop(config, None)
        if number is None:
            return
        if value is None:
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, value)

    def revisit(self, configs: Iterable[PodConfig], again: Iterable[PodConfig] = ()) -> None:
        """Put configs in front of all others: what neighbours promoted since.

        again  tried long ago: they follow, and may be tried once more
        """
        self._exhausted.clear()
        once_more = [config for config in map(self._plain, again) if config not in self._shunned]
        self._tried.difference_update(once_more)
        self._guesses.ahead("again", once_more)
        self._guesses.ahead("neighbour", map(self._plain, configs))

    def _offer(self, config: PodConfig, origin: str) -> Proposal:
        self._tried.add(config)
        if config not in self._numbers:
            self._add(config, TrialState.RUNNING, None)
        try:
            self._target.require_feasible(config, self._geometry)
        except ConfigError as error:
            self.tell(config, None)
            return Proposal(config, origin, str(error))
        return Proposal(config, origin, "")

    def _plain(self, config: PodConfig) -> PodConfig:
        """`config` with the default's values of what does not matter here."""
        return space.plain(config, self._rules, self._choices)

    def _lessons(self, known: Known) -> list[Lesson]:
        """None of a config that this study cannot try."""
        try:
            params = space.encode(known.config, self._choices)
        except ConfigError:
            return []
        return [Lesson(params, known.value, known.traffic.place())]

    def _hydrate(self, trial: Trial) -> None:
        self._guesses.note(trial.config, trial.value)
        if trial.state == "running":
            self._add(trial.config, TrialState.RUNNING, None)
        elif trial.value is None:
            self._add(trial.config, TrialState.PRUNED, None)
        else:
            self._add(trial.config, TrialState.COMPLETE, trial.value)

    def _add(self, config: PodConfig, state: TrialState, value: float | None) -> None:
        """Tell Optuna of a config that it did not propose."""
        try:
            params = space.encode(config, self._choices)
        except ConfigError as error:
            # It is measured all the same; the sampler just cannot learn from it.
            logger.info("config outside of the search space: %s", error)
            return
        frozen: FrozenTrial = create_trial(
            state=state, value=value, params=params, distributions=self._distributions
        )
        self._study.add_trial(frozen)
        if state == TrialState.RUNNING:
            self._numbers[config] = len(self._study.get_trials(deepcopy=False)) - 1


def speedup_of(value: float) -> float:
    """Default time / candidate time of a told value."""
    return math.exp(-value)
