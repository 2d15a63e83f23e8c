"""Ports for children that bind them later: looked for, and kept from whoever looks next."""

from __future__ import annotations

import os
import random
import socket

from pod_integrate.errors import StartError

# Not of those that Linux gives to outgoing connections and to port 0 (32768 and above), any of
# which may be gone before the child binds it; nor of SGLang's own (22000 to 29999), nor of those
# that Ray gives its workers (10002 to 19999).
_PORTS = range(20000, 22000)
# Descriptors of what stands for the ports of this process; the system closes them however it ends.
_reserved: dict[int, int] = {}


def free_port(preferred: int = 0) -> int:
    """`preferred` (0: none) when it is free on loopback, else one that nothing else takes.

    Reserved for this process until it ends: no other caller on this machine is given it, though
    only the child binds it. Raises StartError when none is free.
    """
    anywhere = random.sample(_PORTS, len(_PORTS))
    for port in [preferred, *anywhere] if preferred else anywhere:
        again = port == preferred and port in _reserved
        if not again and not _reserve(port):
            continue
        if _free(port):
            return port
        os.close(_reserved.pop(port))
    raise StartError(
        f"no free port on 127.0.0.1 among {_PORTS.start} to {_PORTS.stop - 1}: end what listens"
        " there (`ss -ltnp`), or name free ports yourself"
    )


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _reserve(port: int) -> bool:
    """Take a name of Linux's abstract sockets, which one process at a time can bind."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0pod-attn-port-{port}")
    except OSError:
        name.close()
        return False
    _reserved[port] = name.detach()
    return True
