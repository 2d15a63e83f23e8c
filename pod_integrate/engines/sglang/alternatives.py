"""Which of SGLang's own attention backends a machine has: refusals name no others."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterable

from pod_integrate.devices.base import Device


@dataclasses.dataclass(frozen=True)
class Machine:
    """What decides on SGLang's backends.

    capability  compute capability of a GPU, None elsewhere
    flashinfer  whether that package is installed
    """

    capability: tuple[int, int] | None = None
    flashinfer: bool = False

    @classmethod
    def of(cls, device: Device) -> Machine:
        """This machine, for a model on `device`."""
        found = importlib.util.find_spec("flashinfer") is not None
        return cls(device.compute_capability, found)

    def has(self, backend: str) -> bool:
        """Whether SGLang can run `backend` here, as its own start-up checks decide."""
        if backend == "torch_native":
            return True
        if self.capability is None:
            return False
        major = self.capability[0]
        return {
            "triton": True,
            "flashinfer": self.flashinfer and self.capability >= (7, 5),
            "fa3": 8 <= major <= 9,
            # On sm_90 newer versions only; they name it themselves.
            "trtllm_mha": major == 10,
            "trtllm_mla": major == 10,
        }[backend]


def way_out(
    machine: Machine, own: str, serving: Iterable[str], flag: str = "--attention-backend"
) -> str:
    """A refusal's last words: what to do, and the backends here that serve the feature.

    own      what to do with flags or variables, may be empty
    serving  SGLang's backends that serve the feature on some machine, best first
    flag     that names one of them
    """
    here = [name for name in serving if machine.has(name)]
    other = f"use {flag} {' or '.join(here)}" if here else ""
    if own or other:
        return " or ".join(part for part in (own, other) if part)
    kind = "GPU" if machine.capability is not None else "machine without a GPU"
    return f"no backend of SGLang is known to serve it on this {kind}"
