"""What the parts of the tuner pass to each other: keys, tasks, reports, records."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import msgspec

from pod_integrate.devices.registry import target_of
from pod_integrate.errors import KernelUnavailableError, ShapeError, TraceError
from pod_integrate.terms import wire
from pod_integrate.terms.experiment import MAX_PAIRS as MAX_PAIRS
from pod_integrate.terms.experiment import MAX_REASON as MAX_REASON
from pod_integrate.terms.experiment import Outcome as Outcome
from pod_integrate.terms.experiment import Pair as Pair
from pod_integrate.terms.experiment import StepLengths as StepLengths
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry

# Stands for every server and worker.
EVERYONE = "*"
TrialState = Literal["running", "complete", "pruned"]

# What became of a promoted config that somebody rechecked.
Standing = Literal["kept", "rolled back", "open", "not promoted"]


class Scope(NamedTuple):
    """What one config table belongs to, in printed form."""

    geometry: str
    device: str
    build: str


class StudyKey(NamedTuple):
    """What one study belongs to, in printed form."""

    geometry: str
    device: str
    build: str
    bucket: str

    @property
    def scope(self) -> Scope:
        """The key without its bucket."""
        return Scope(self.geometry, self.device, self.build)

    def parsed(self) -> tuple[Geometry, DeviceKey, Bucket]:
        """The three keys as values; raises ShapeError when one is malformed."""
        return (
            Geometry.parse(self.geometry),
            DeviceKey.parse(self.device),
            Bucket.parse(self.bucket),
        )


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of measuring: run `baseline` and `candidate` side by side on traced batches.

    phase       which list of pairs the result joins, e.g. `screen` or `confirm:1:default`
    baseline    PodConfig as a dict
    candidate   PodConfig as a dict
    batches     distinct traced steps to replay in turn
    step_pairs  pairs wanted of each
    seconds     no further step is begun once they are over
    verify      compare the candidate with the float64 reference first
    layers      attention calls per step in the traces: K/V buffers to rotate through
    lost        workers that took this task and never reported
    """

    id: str
    geometry: str
    device: str
    build: str
    bucket: str
    number: int
    phase: str
    baseline: dict[str, Any]
    candidate: dict[str, Any]
    batches: list[StepLengths]
    step_pairs: int
    seconds: float
    verify: bool
    layers: int
    seed: int
    lost: int = 0

    @property
    def key(self) -> StudyKey:
        """The study that asked."""
        return StudyKey(self.geometry, self.device, self.build, self.bucket)


class LivePair(Pair, frozen=True, array_like=True):
    """A pair that a server took on neighbouring layers of one live step."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a task; `reason` is empty only for `measured`."""

    task: wire.Key
    worker: wire.Key
    outcome: Outcome
    reason: str = ""
    pairs: Annotated[list[Pair], msgspec.Meta(max_length=MAX_PAIRS)] = []

    def checked(self) -> Report:
        """This report with everything in its bounds: as `failed` where it was not.

        Structs that travel pickled are not checked on the way.
        """
        reason = self.reason.replace("\0", "")[:MAX_REASON]
        try:
            plain = msgspec.to_builtins(msgspec.structs.replace(self, reason=reason))
            return msgspec.convert(plain, Report)
        except msgspec.ValidationError as error:
            reason = f"the worker's report is malformed: {error}"
            return Report(task=self.task, worker=self.worker, outcome="failed", reason=reason)


class Posted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON document that somebody posts; errors call it `called`."""

    called: ClassVar[str]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Parse and check it; raises TraceError that names the first bad place."""
        try:
            posted = msgspec.json.decode(body, type=cls)
            posted._check()
        except (msgspec.MsgspecError, ValueError, RecursionError, ShapeError) as error:
            raise TraceError(f"{cls.called} is malformed: {str(error)[:500]}") from error
        return posted

    def _check(self) -> None:
        """Raise ShapeError for what a type cannot say."""


class RecheckPairs(Posted, frozen=True, kw_only=True):
    """Pairs of the default (baseline) and a bucket's promoted config, taken by somebody else.

    trial  of the table entry's evidence: says which config was measured
    """

    called = "re-check"
    geometry: wire.Key
    device: wire.Key
    build: wire.Key
    bucket: wire.Key
    trial: wire.Number
    pairs: Annotated[list[Pair], msgspec.Meta(min_length=1, max_length=MAX_PAIRS)]

    @property
    def key(self) -> StudyKey:
        """The study that promoted the config."""
        return StudyKey(self.geometry, self.device, self.build, self.bucket)

    def _check(self) -> None:
        self.key.parsed()


class Noted(NamedTuple):
    """Of a report on an experiment: whether it was filed, and whether no more is wanted of it."""

    taken: bool
    done: bool


class Proof(NamedTuple):
    """How much evidence there is and what it says.

    pairs, steps  interleaved pairs, and the distinct steps that they were taken on
    speedup       median over the steps, None without any
    lower_bound   of that median at 1 - alpha, None while there are too few steps for one
    """

    pairs: int = 0
    steps: int = 0
    speedup: float | None = None
    lower_bound: float | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for work and what it can measure.

    A CPU worker measures any thread count up to the units of its device key, a GPU worker only
    its own key.
    """

    id: str
    device: str
    build: str

    def can_measure(self, scope: Scope) -> bool:
        """Whether times taken by this worker are valid under `scope`."""
        if scope.build != self.build:
            return False
        try:
            mine, traced = DeviceKey.parse(self.device), DeviceKey.parse(scope.device)
            return target_of(mine).can_measure(traced)
        except (ShapeError, KernelUnavailableError):
            return False


def iso(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC with milliseconds; of the years that it has."""
    # Later times, of a file that somebody wrote to, have no date.
    within = min(max(seconds, 0.0), wire.MAX_UNIX_SECONDS)
    moment = datetime.datetime.fromtimestamp(within, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
