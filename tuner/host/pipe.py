"""Calls of the core through a pipe: the side that asks, and the side that has the core."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Concatenate, ParamSpec, TypeVar

from pod_integrate.errors import PodAttentionError
from tuner.core import Tuner
from tuner.host.client import BlockingCore, CoreUnavailableError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class PipeCore:
    """BlockingCore in another process, one call at a time.

    closed  the other side has ended: nothing will be answered any more
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.closed = False

    def call(
        self, function: Callable[Concatenate[Tuner, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The function's answer."""
        error: Exception | None
        try:
            self._pipe.send((function, args, kwargs))
            answer, error = self._pipe.recv()
        except (EOFError, OSError) as gone:
            self.closed = True
            raise CoreUnavailableError("the tuner has ended") from gone
        if error is not None:
            raise error
        found: T = answer
        return found


def serve(core: BlockingCore, pipe: Connection, *, name: str, stop: Callable[[], bool]) -> int:
    """Answer a PipeCore's calls until either side ends; returns the reports taken.

    name  of the other side, for the log
    """
    served = 0
    try:
        while not stop():
            if not pipe.poll(0.1):
                continue
            function, args, kwargs = pipe.recv()
            answer = _answer(core, function, args, kwargs, name)
            try:
                # Pickled whole before the first byte leaves, so that another answer may follow.
                pipe.send(answer)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                logger.exception("the answer to %s cannot travel", name)
                pipe.send((None, CoreUnavailableError(f"the answer cannot travel: {error}")))
            served += function is Tuner.report
    except (EOFError, OSError):
        logger.debug("pipe of %s closed", name)
    return served


def _answer(
    core: BlockingCore,
    function: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    name: str,
) -> tuple[object, Exception | None]:
    """What travels back: an answer, or the error instead of one."""
    try:
        return core.call(function, *args, **kwargs), None
    except CoreUnavailableError as error:
        logger.error("%s turned away: %s", name, error)
        return None, error
    except PodAttentionError as error:
        return None, _able_to_travel(error)
    except Exception as error:
        logger.exception("%s asked for what failed", name)
        return None, _able_to_travel(error)


def _able_to_travel(error: Exception) -> Exception:
    """The error, or what it says where pickle loses it: some are made from more than they keep."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception as lost:
        logger.debug("%s does not travel: %s", type(error).__name__, lost)
        return CoreUnavailableError(f"{type(error).__name__}: {error}")
    return error
