"""Experiment schema: how a server and the tuner try one config against another on live steps.

A server asks for work with an ExperimentAsk, gets an Experiment or nothing, and answers it with
ExperimentReports. JSON and msgpack read alike; bounds are those of wire.py.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, Self

import msgspec

from pod_integrate.errors import PodAttentionError, TraceError
from pod_integrate.terms import wire
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import require_bearable

WIRE_VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20
# Pairs of one report, and letters kept of a reason: builds fail in many words.
MAX_PAIRS = 10_000
MAX_REASON = 4000
MAX_BUCKETS = 64
MAX_STEPS = 4096
MAX_LEASE_SECONDS = 86_400.0
# A candidate that takes so many times as long in its first two steps has lost.
HOPELESS, HOPELESS_STEPS = 1.25, 2
# Phases that begin so ask whether what is in force still holds.
RECHECK = "recheck:"
_MAX_ERROR = 500

Outcome = Literal["measured", "infeasible", "mismatch", "failed"]


class StepLengths(msgspec.Struct, frozen=True):
    """Host lengths of one batch."""

    q_lens: list[int]
    kv_lens: list[int]

    @property
    def digest(self) -> str:
        """Eight characters that tell one list of lengths from another."""
        return hashlib.blake2b(msgspec.msgpack.encode(self), digest_size=4).hexdigest()


class Pair(msgspec.Struct, frozen=True, array_like=True):
    """Baseline and candidate next to each other on one step, us per call.

    Of a live step that is the median over pairs of neighbouring layers: `candidate_us` over
    `baseline_us` is the median of their ratios, `baseline_us` the median baseline layer.

    batch  digest of the step's lengths; a pair without one is evidence of nothing
    """

    baseline_us: wire.TimedMicros
    candidate_us: wire.TimedMicros
    batch: Annotated[str, msgspec.Meta(max_length=8)] = ""

    @property
    def speedup(self) -> float:
        """Baseline time / candidate time."""
        return self.baseline_us / self.candidate_us


class SeenBucket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bucket that a server could run an experiment in now.

    steps         of the last while, all and not only sampled ones
    attention_us  that they spent in attention, by the share that was timed; 0 when unknown
    captured      its steps replay CUDA graphs: a candidate must keep the tiles of the capture
    tiles         name of the captured tiles as in devices/cuda/choices.py; empty when not captured
    """

    bucket: wire.Key
    steps: wire.Steps
    attention_us: wire.Micros = 0.0
    captured: bool = False
    tiles: Annotated[str, msgspec.Meta(max_length=wire.MAX_KEY)] = ""


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that is one JSON or msgpack document."""

    @classmethod
    def decode(cls, body: bytes, *, json: bool = True) -> Self:
        """Parse and check a body; raises TraceError that names the first bad place."""
        if len(body) > MAX_MESSAGE_BYTES:
            raise TraceError(
                f"{cls.__name__} is {len(body)} bytes, the limit is {MAX_MESSAGE_BYTES}"
            )
        try:
            read = msgspec.json.decode if json else msgspec.msgpack.decode
            message = read(body, type=cls)
            message._check()
        except TraceError:
            raise
        except (
            *(msgspec.MsgspecError, PodAttentionError, ValueError, TypeError, RecursionError),
        ) as error:
            words = str(error)[:_MAX_ERROR]
            raise TraceError(f"{cls.__name__} is malformed: {words}") from error
        return message

    def encode(self) -> bytes:
        """JSON bytes of this message."""
        return msgspec.json.encode(self)

    def _check(self) -> None:
        """Raise PodAttentionError for what a type cannot say."""


class ExperimentAsk(_Message, frozen=True, kw_only=True):
    """A server offers some of its steps.

    server         stable printable id of the serving process
    variants_only  it cannot compile: only configs of variants that it was shipped with can run
    buckets        seen lately, and free: no experiment of this server runs in them
    """

    version: wire.WireVersion
    server: wire.Key
    geometry: wire.Key
    device: wire.Key
    build: wire.Key
    buckets: Annotated[list[SeenBucket], msgspec.Meta(min_length=1, max_length=MAX_BUCKETS)]
    variants_only: bool = False

    def _check(self) -> None:
        wire.check_version(self.version, WIRE_VERSION, "experiment")
        Geometry.parse(self.geometry), DeviceKey.parse(self.device)
        for seen in self.buckets:
            Bucket.parse(seen.bucket)


class Experiment(_Message, frozen=True, kw_only=True):
    """What the tuner wants to know of one bucket's steps.

    number     trial of the candidate in its bucket's study
    phase      which list of pairs the result joins
    baseline   PodConfig as a dict
    candidate  PodConfig as a dict; may equal the baseline
    steps      wanted
    seconds    until the tuner gives the work to somebody else; a report prolongs it
    verify     compare the candidate's answers with the default's first
    """

    id: wire.Key
    bucket: wire.Key
    number: wire.Number
    phase: wire.Key
    baseline: dict[str, Any]
    candidate: dict[str, Any]
    steps: Annotated[int, msgspec.Meta(ge=1, le=MAX_STEPS)]
    seconds: Annotated[float, msgspec.Meta(ge=1.0, le=MAX_LEASE_SECONDS)]
    verify: bool = True

    @property
    def guards(self) -> bool:
        """Whether it compares what is in force with the default: steps run one of them anyway."""
        return self.phase.startswith(RECHECK)

    def _check(self) -> None:
        bucket = Bucket.parse(self.bucket)
        for config in (self.baseline, self.candidate):
            require_bearable(bucket, PodConfig.from_dict(config))


class ExperimentReport(_Message, frozen=True, kw_only=True):
    """What came of an experiment so far.

    outcome  `measured`, or why there are no (more) pairs; `reason` is empty only for `measured`
    pairs    one a step, those of earlier reports left out
    layers   attention calls of a step; 0 when no step was measured
    done     the server has ended the experiment; else it goes on and reports again
    """

    version: wire.WireVersion
    server: wire.Key
    id: wire.Key
    outcome: Outcome
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON, pattern="^[^\0]*$")] = ""
    pairs: Annotated[list[Pair], msgspec.Meta(max_length=MAX_PAIRS)] = []
    layers: wire.Layers = 0
    done: bool = True

    def _check(self) -> None:
        wire.check_version(self.version, WIRE_VERSION, "experiment")
        if self.outcome != "measured" and not (self.reason and self.done):
            raise TraceError(f"a report of {self.outcome!r} is the last one and needs a reason")
