"""What the tuner wants tried becomes a live experiment, or a reason why it cannot run here."""

from __future__ import annotations

import logging

import torch

from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.errors import ConfigInfeasibleError, MismatchError, PodAttentionError
from pod_integrate.live.experiments import Arms, LiveExperiment, Seen
from pod_integrate.live.readiness import Readiness
from pod_integrate.live.verify import NoRoomError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import Experiment, Outcome

logger = logging.getLogger(__name__)

# Done, with the pairs that there are: no verdict on the config where there are none.
GIVEN_BACK: tuple[Outcome, str] = ("measured", "")


def arm(
    experiment: Experiment, seen: Seen | None, readiness: Readiness
) -> LiveExperiment | tuple[Outcome, str] | None:
    """The experiment with its configs prepared, or an outcome and a reason; None: they compile.

    seen  of its bucket lately

    For the thread of a laboratory.
    """
    if seen is None:
        return GIVEN_BACK
    configs = [PodConfig.from_dict(c) for c in (experiment.baseline, experiment.candidate)]
    if seen.tiles and {tiles_name(config) for config in configs} != {seen.tiles}:
        return "infeasible", f"its steps replay graphs with tiles {seen.tiles}"
    try:
        built = [readiness.is_built(config) for config in configs]
        if not all(built):
            return None
        arms = [readiness.prepare(c, seen.lengths, again=experiment.verify) for c in configs]
    except MismatchError as error:
        return "mismatch", str(error)
    except ConfigInfeasibleError as error:
        return "infeasible", str(error)
    except PodAttentionError as error:
        return "failed", f"{type(error).__name__}: {error}"
    except (NoRoomError, torch.OutOfMemoryError) as error:
        logger.info("experiment in %s given back: %s", experiment.bucket, error)
        return GIVEN_BACK
    except Exception:
        # A lease without an end would hold its place for ever.
        logger.exception("experiment in %s given back", experiment.bucket)
        return GIVEN_BACK
    return LiveExperiment(experiment, Arms(*arms), readiness.wake)
