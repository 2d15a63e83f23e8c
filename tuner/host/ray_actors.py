"""What runs inside Ray: the core actor, the measuring actor, and how others reach the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from tuner.core import Tuner
from tuner.host.client import CoreUnavailableError, TaskClient
from tuner.host.measuring import measure_until
from tuner.host.opening import open_tuner
from tuner.host.thread import storage_as_unavailable
from tuner.settings import TunerSettings
from tuner.store.storage import reason

NAMESPACE = "pod-attention-tuner"
CORE = "core"
_CALL_SECONDS = 60.0

P = ParamSpec("P")
T = TypeVar("T")


class Core:
    """The Tuner as an actor. What is retried after a restart is recognised as a duplicate."""

    def __init__(self, settings: TunerSettings) -> None:
        self._tuner = open_tuner(settings, "ray")

    def call(self, function: Callable[..., object], args: Any, kwargs: Any) -> object:
        """What a function of the Tuner answers."""
        with storage_as_unavailable():
            return function(self._tuner, *args, **kwargs)


class RayCore:
    """AsyncCore and BlockingCore over the core actor, which is found by its name."""

    def __init__(self) -> None:
        self._actor: Any = None

    async def ask(
        self, function: Callable[Concatenate[Tuner, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The function's answer, without blocking the event loop."""
        try:
            found: T = await self._found().call.remote(function, args, kwargs)
            return found
        except (RayError, ValueError) as error:
            raise self._seen(error) from error

    def call(
        self, function: Callable[Concatenate[Tuner, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The function's answer, waited for."""
        try:
            found: T = ray.get(
                self._found().call.remote(function, args, kwargs), timeout=_CALL_SECONDS
            )
            return found
        except (RayError, ValueError) as error:
            raise self._seen(error) from error

    def _found(self) -> Any:
        if self._actor is None:
            self._actor = ray.get_actor(CORE, namespace=NAMESPACE)
        return self._actor

    def _seen(self, error: Exception) -> Exception:
        """What the function raised, as itself; else that the core is away."""
        cause = error.cause if isinstance(error, RayTaskError) else None
        # Ray puts an error of its own in the place of one that cannot be pickled.
        if isinstance(cause, Exception) and not isinstance(cause, RayError):
            return cause
        self._actor = None
        return CoreUnavailableError(f"core actor: {reason(error)}")


class Measurer:
    """A measuring actor: `run` never returns; Ray restarts actor and method when it dies."""

    def __init__(self, name: str, nice: int) -> None:
        self._name, self._nice = name, nice

    def run(self) -> None:
        """Measure until the actor is killed."""
        measure_until(TaskClient(RayCore()), self._name, self._nice, stop=lambda: False)


def start_core(settings: TunerSettings, **options: Any) -> Any:
    """The core actor, waited for until it answers; `options` are Ray's.

    What is wrong with its database is raised here.
    """
    actor = ray.remote(Core).options(
        name=CORE, namespace=NAMESPACE, num_cpus=0, max_restarts=-1, max_task_retries=-1, **options
    )
    core = actor.remote(settings)
    ray.get(core.call.remote(ready, (), {}))
    return core


def ready(tuner: Tuner) -> bool:
    """Whether a core answers and can read its database."""
    with tuner.store.read():
        return True


def start_measurers(names: list[str], nice: int, **options: Any) -> list[Any]:
    """One measuring actor per name; `options` are Ray's."""
    measurers = []
    for name in names:
        actor = ray.remote(Measurer).options(
            num_cpus=1, max_restarts=-1, max_task_retries=-1, **options
        )
        measurer = actor.remote(name, nice)
        # Never awaited: it ends with its actor.
        measurer.run.remote()
        measurers.append(measurer)
    return measurers
