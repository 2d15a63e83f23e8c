"""The socket that HTTP listens on."""

from __future__ import annotations

import socket

from pod_integrate.errors import SettingsError
from tuner.settings import TunerSettings


def listen(settings: TunerSettings) -> socket.socket:
    """A bound socket, so that a taken port is an error before anything else starts."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"POD_TUNER_PORT: cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "choose another port, 0 for any free one"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """http://host:port of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
