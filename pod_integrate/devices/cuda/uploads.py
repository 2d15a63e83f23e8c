"""Plans of batches in device memory: made once per geometry, config and stream, kept by the batch.

The layers of a step ask for the same plan one after the other, so the last one is found without a
lock and without hashing.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Callable, MutableMapping
from typing import NamedTuple

import torch
import tvm_ffi
from torch.utils.weak import WeakTensorKeyDictionary

from pod_integrate.devices.cuda.planning import Capacity, plan_batch
from pod_integrate.devices.cuda.runtime import Runtime
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry


class Room(NamedTuple):
    """What a launch of one capacity takes: its grid sizes, and bytes of workspace.

    beside  whether the ops run in a launch each, side by side, though the config says `fused`
    """

    capacity: tvm_ffi.Shape
    workspace: int
    beside: bool = False


@dataclasses.dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Uploaded:
    """A batch's plan in device memory, for launches on one stream.

    q_indptr  id of the tensor that the plan goes with; no other can have it while the plan lives
    kv_lens   held so that its id stays its own
    """

    words: torch.Tensor
    room: Room
    tokens: int
    requests: int
    q_indptr: int
    kv_lens: torch.Tensor
    stream: int


_Key = tuple[object, ...]
_lock = threading.Lock()
# By q_indptr; entries go with their batch.
_plans: MutableMapping[torch.Tensor, dict[_Key, Uploaded]] = WeakTensorKeyDictionary()


class Plans:
    """Plans of one geometry and config on one device.

    num_sms  SMs to plan for
    runtime  of the device
    room     what a launch of a capacity takes
    """

    def __init__(
        self,
        geometry: Geometry,
        config: PodConfig,
        num_sms: int,
        *,
        runtime: Runtime,
        room: Callable[[Capacity], Room],
    ) -> None:
        self._geometry, self._config, self._num_sms = geometry, config, num_sms
        self._runtime, self._room = runtime, room
        heads = (geometry.num_q_heads, geometry.num_kv_heads, geometry.head_dim)
        self._key: _Key = (*heads, geometry.window_left, config, runtime.place.index)
        # Weak: a batch's plan does not outlive it here.
        self._last: Callable[[], Uploaded | None] = lambda: None

    def get(self, q_indptr: torch.Tensor, kv_lens: torch.Tensor, stream: int) -> Uploaded:
        """The plan of a batch, made and uploaded on the current stream, `stream`, if it is new.

        Raises ShapeError for lengths that contradict each other.
        """
        last = self._last()
        same_starts = last is not None and last.q_indptr == id(q_indptr)
        if last is not None and same_starts and last.kv_lens is kv_lens and last.stream == stream:
            return last
        key: _Key = (id(kv_lens), *self._key, stream)
        with _lock:
            found = _plans.setdefault(q_indptr, {}).get(key)
        if found is None:
            found = self._make(q_indptr, kv_lens, stream)
            with _lock:
                _plans.setdefault(q_indptr, {})[key] = found
        self._last = weakref.ref(found)
        return found

    def _make(self, q_indptr: torch.Tensor, kv_lens: torch.Tensor, stream: int) -> Uploaded:
        planned = plan_batch(
            q_indptr,
            kv_lens,
            self._geometry,
            self._config,
            num_sms=self._num_sms,
            pin=self._runtime.pinned,
        )
        return Uploaded(
            # torch keeps the page-locked source until the copy has run.
            words=planned.words.to(self._runtime.place, non_blocking=True),
            room=self._room(planned.capacity),
            tokens=planned.tokens,
            requests=planned.requests,
            q_indptr=id(q_indptr),
            kv_lens=kv_lens,
            stream=stream,
        )
