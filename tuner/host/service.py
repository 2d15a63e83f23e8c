"""Running the tuner in the foreground: under Ray Serve, or plain under uvicorn."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import sqlalchemy as sa

from pod_integrate.errors import SettingsError
from tuner.host.plain import run_plain
from tuner.settings import TunerSettings, is_loopback

OnPhase = Callable[[str, str], None]


def run_tuner(
    settings: TunerSettings,
    *,
    on_phase: OnPhase | None = None,
    ray: bool = True,
    stop: threading.Event | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or `stop`; returns after a clean shutdown.

    on_phase  called with (phase, detail) as start-up and shutdown proceed; phases are `storage`,
              `ray` (only then), `workers`, `ready` (detail: the URL), `stopping`, `stopped`
    ray       host the core, HTTP and workers as Ray actors; else in this process and child
              processes, which starts in seconds and serves one machine
    stop      set by another thread to end the run

    Signal handlers are installed only when called from the main thread. Raises SettingsError when
    the port or the database is taken.
    """
    require_no_secret_in_arguments(settings)
    told = on_phase or (lambda _phase, _detail: None)
    ended = stop or threading.Event()
    if ray:
        prepare_ray(settings)
        # Ray reads its environment at import.
        from tuner.host.ray_service import run_on_ray

        run_on_ray(settings, on_phase=told, stop=ended)
    else:
        run_plain(settings, on_phase=told, stop=ended)
    told("stopped", "")


def require_no_secret_in_arguments(settings: TunerSettings) -> None:
    """Raise SettingsError when this process's title shows a secret: anybody may read it."""
    password = sa.make_url(settings.url).password if settings.database_url else None
    for secret, name in ((password, "DATABASE_URL"), (settings.token.get_secret_value(), "TOKEN")):
        if secret and any(str(secret) in argument for argument in sys.argv[1:]):
            raise SettingsError(
                "a secret on the command line can be read by every user of this machine: set "
                f"POD_TUNER_{name} in the environment instead"
            )


def prepare_ray(settings: TunerSettings) -> None:
    """Set Ray's environment, what the operator set first.

    No usage reports; loopback only when HTTP is loopback only. Ray would make all its workers nice
    15, HTTP and core included, and gives Serve's proxy 5 s to come up: beside a server that is
    starting it then never does. Only measuring is to go last (POD_TUNER_NICE).
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    if is_loopback(settings.host):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
