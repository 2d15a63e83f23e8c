"""Shadow: a config's first use on a live step, beside the one that answers.

Random inputs cannot show what real ones could: their page tables, strides and sizes. So one layer
runs the config once more, into memory that nobody reads, and both answers are compared on the
device. The verdict comes with the clock's times; nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from pod_integrate.devices.call import Attention, Result
from pod_integrate.devices.clock import Clock

# Calls of an engine's layer with the attention to use, into the given memory or its own.
Attend = Callable[[Attention, torch.Tensor | None], Result]
Verdict = Literal["alike", "differs", "unknown", "no room"]
Told = Callable[[Verdict], None]

# Rows that are compared, evenly spread over the batch.
_MOST_ROWS = 1024
# The pass rule's terms with a row's largest output in place of what its weights' roundings add up
# to, which only another launch could tell: loose by some times, a bug of a kernel is far beyond it.
_ROUNDINGS, _RELATIVE, _ABSOLUTE = 16.0, 1e-4, 2e-5
_LSE = 1e-3


class Shadow:
    """Runs `attention` beside the first layer of one step.

    told     one float32 on the host, page-locked on a GPU; made beforehand, since that takes long
    verdict  called once, at this step's harvest or later
    """

    def __init__(
        self, attention: Attention, clock: Clock, told: torch.Tensor, verdict: Told
    ) -> None:
        self._attention, self._clock, self._told = attention, clock, told
        self._verdict: Told | None = verdict

    @property
    def begun(self) -> bool:
        """Whether it has run, so that a verdict will come."""
        return self._verdict is None

    def run(self, attend: Attend, answered: Result) -> None:
        """After the first layer's answer; does nothing after further ones."""
        verdict, self._verdict = self._verdict, None
        if verdict is None:
            return
        mark = self._clock.start()
        try:
            tried = attend(self._attention, torch.empty_like(answered.out))
            self._told.copy_(differs(answered, tried), non_blocking=True)
        except torch.OutOfMemoryError:
            # The step has its answer: it must not fail for want of a second one.
            self._clock.release(mark)
            verdict("no room")
            return
        except BaseException:
            verdict("unknown")
            raise

        def known(seconds: float | None) -> None:
            said: Verdict = "differs" if self._told else "alike"
            verdict("unknown" if seconds is None else said)

        # What was queued before the end of the span has ended with it, the copy too.
        self._clock.stop(mark, known)


def differs(answered: Result, tried: Result) -> torch.Tensor:
    """Whether two answers are further apart than rounding, one float32 on their device: 1 or 0."""
    rows = slice(None, None, -(-max(1, answered.out.shape[0]) // _MOST_ROWS))
    half_ulp = torch.finfo(answered.out.dtype).eps / 2
    out, other = answered.out[rows].float(), tried.out[rows].float()
    largest = out.abs().amax(dim=-1, keepdim=True) if out.numel() else out
    allowed = _ABSOLUTE + max(_ROUNDINGS * half_ulp, _RELATIVE) * largest
    lse, other_lse = answered.lse[rows], tried.lse[rows]
    far = _beyond(out, other, allowed), _beyond(lse, other_lse, _LSE * (1 + lse.abs()))
    return (far[0].any() | far[1].any()).float()


def _beyond(first: torch.Tensor, second: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    # An infinity or a NaN of the model's own is in both.
    same = (first == second) | (first.isnan() & second.isnan())
    return ~(((first - second).abs() <= allowed) | same)
