"""The tuner as a Serve application, for clusters that start Ray themselves (KubeRay).

`serveConfigV2` names `tuner.ray_app:app_builder`. The HTTP replica starts the core actor on the
head node, where the state's volume is, and one measuring actor per worker. The core outlives its
replica; the measuring actors belong to it and are made anew with it.
"""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray import serve

from pod_integrate.errors import SettingsError
from tuner.host.ray_actors import CORE, NAMESPACE, Core, Measurer
from tuner.host.ray_service import build_http
from tuner.settings import TunerSettings, load

logger = logging.getLogger(__name__)

# Ray gives every head node this resource; a share of it pins an actor there.
_ON_HEAD = {"node:__internal_head__": 0.001}


def app_builder(args: dict[str, Any]) -> Any:
    """Serve application of one tuner.

    args  TunerSettings by field name, over POD_TUNER_* of the head; where HTTP listens is Serve's
          choice (`http_options`), so `host` and `port` are of no use here and raise SettingsError
    """
    useless = sorted({"host", "port"} & set(args))
    unknown = sorted(set(args) - set(TunerSettings.model_fields))
    if useless or unknown:
        raise SettingsError(
            f"args {useless + unknown} do nothing here; HTTP is set in serveConfigV2.http_options, "
            f"fields are {sorted(TunerSettings.model_fields)}"
        )
    settings = load(**args)
    token = settings.token.get_secret_value()
    if not token:
        raise SettingsError(
            "POD_TUNER_TOKEN: a cluster's pods reach this service, so it needs a token; give it "
            "to the head from a Secret, and to servers as POD_ATTN_TUNER_TOKEN"
        )

    class Http:
        def __init__(self) -> None:
            self._core = start_core(settings)
            self._measurers = start_measurers(settings)

    deployment = serve.deployment(
        name="http", num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}
    )
    return deployment(serve.ingress(lambda: build_http(token))(Http)).bind()


def start_core(settings: TunerSettings) -> Any:
    """The core actor of this cluster, started when there is none; waits until it answers."""
    actor = ray.remote(Core).options(
        name=CORE, namespace=NAMESPACE, lifetime="detached", get_if_exists=True,
        num_cpus=0, resources=_ON_HEAD, max_restarts=-1, max_task_retries=-1,
    )  # fmt: skip
    core = actor.remote(settings)
    ray.get(core.overview.remote())
    return core


def start_measurers(settings: TunerSettings) -> list[Any]:
    """One measuring actor per `settings.workers`, spread so that they do not share a node."""
    measurers = []
    for i in range(settings.workers):
        actor = ray.remote(Measurer).options(
            num_cpus=1, scheduling_strategy="SPREAD", max_restarts=-1, max_task_retries=-1
        )
        measurer = actor.remote(f"measuring-{i}", settings.nice)
        # Never awaited: it ends with its actor.
        measurer.run.remote()
        measurers.append(measurer)
    logger.info("%d measuring actors started", len(measurers))
    return measurers
