"""The tuner as a Serve application, for clusters that start Ray themselves (KubeRay).

`serveConfigV2` names `tuner.ray_app:app_builder`. The HTTP replica starts the core actor on the
head node, where the state's volume is, and one measuring actor per worker. The core outlives its
replica; the measuring actors belong to it and are made anew with it.
"""

from __future__ import annotations

import logging
from typing import Any

from pod_integrate.errors import SettingsError
from tuner.host.ray_actors import start_core, start_measurers
from tuner.host.ray_service import http_application
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
            self._core = start_core(
                settings, lifetime="detached", get_if_exists=True, resources=_ON_HEAD
            )
            # Spread so that they do not share a node.
            self._measurers = start_measurers(
                [f"measuring-{i}" for i in range(settings.workers)], settings.nice,
                scheduling_strategy="SPREAD",
            )  # fmt: skip
            logger.info("%d measuring actors started", len(self._measurers))

    return http_application(Http, token)
