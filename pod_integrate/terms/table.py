"""ConfigTable: the tuned PodConfig of each bucket, with its evidence, as versioned JSON.

A table belongs to one (geometry, device, kernel build). A bad table is rejected whole; bounds of
its numbers are those of wire.py.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any, Literal, NamedTuple, Self

import msgspec

from pod_integrate.errors import ConfigInfeasibleError, PodAttentionError, TableError
from pod_integrate.terms import wire
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry

SCHEMA = 1
MAX_TABLE_BYTES = 4 << 20
MAX_ENTRIES = 4096
# Steps of one bucket differ: what is faster on two of them may well be slower on the next ones.
MIN_STEPS = 8
# Shorter decode items cost more to plan and to merge than they bring, on any device.
MIN_SPLIT_TOKENS = 32
# Decode items of a step by its bucket: planning takes some 2 us each, and each writes 4 bytes a
# query head and head dim of workspace: at 32 heads of 128 half a GiB.
MAX_DECODE_PARTS = 1 << 15

Source = Literal["exact", "default"]


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why an entry was promoted.

    pairs           interleaved (default, candidate) measurements that decided
    steps           distinct traced steps that the pairs replayed, at least MIN_STEPS
    median_speedup  default time / candidate time, median over steps of the median of their pairs
    lower_bound     lower confidence bound of median_speedup at `confidence`, at most that
    method          how it was measured, e.g. `replay` or `live`
    measured_at     ISO 8601, UTC
    build           kernel build that was measured
    trial           trial number inside the study
    """

    pairs: wire.Number
    steps: wire.Number
    median_speedup: wire.Speedup
    lower_bound: wire.Speedup
    confidence: wire.Share
    method: wire.Key
    measured_at: wire.Key
    build: wire.Key
    trial: wire.Number


class TableEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bucket's promoted config and its evidence."""

    config: PodConfig
    evidence: Evidence


class Lookup(NamedTuple):
    """Result of `ConfigTable.lookup`: config is None when the caller's default applies."""

    config: PodConfig | None
    source: Source


_DEFAULT = Lookup(None, "default")


class _Document(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    schema: wire.WireVersion
    version: wire.Number
    geometry: wire.Key
    device: wire.Key
    build: wire.Key
    updated: wire.Key
    entries: dict[wire.Key, dict[str, Any]]
    checksum: wire.Key | None = None


@dataclasses.dataclass(frozen=True)
class ConfigTable:
    """Immutable; a new version is a new object that replaces the old one in one assignment."""

    version: int
    geometry: Geometry
    device: DeviceKey
    build: str
    updated: str
    entries: dict[Bucket, TableEntry]

    def lookup(self, bucket: Bucket) -> Lookup:
        """The config that was proven in exactly this bucket, else the default.

        What is fastest in one bucket may be slower than the default in the next one.
        """
        entry = self.entries.get(bucket)
        return _DEFAULT if entry is None else Lookup(entry.config, "exact")

    def rows(self) -> list[tuple[Bucket, TableEntry]]:
        """The entries in the order in which they are written and shown."""
        return sorted(self.entries.items(), key=lambda item: str(item[0]))

    @functools.cached_property
    def checksum(self) -> str:
        """Of everything that the table says, however it is laid out in a file."""
        return f"blake2b-{hashlib.blake2b(self.to_json(), digest_size=16).hexdigest()}"

    def to_json(self, *, checksum: bool = False) -> bytes:
        """Indented JSON, keys in a fixed order, so that versions can be diffed.

        checksum  with one, as files have that people pass on; `from_json` checks it
        """
        entries = {
            str(bucket): {
                "config": entry.config.to_dict(),
                "evidence": msgspec.structs.asdict(entry.evidence),
            }
            for bucket, entry in self.rows()
        }
        document = _Document(
            schema=SCHEMA,
            version=self.version,
            geometry=str(self.geometry),
            device=str(self.device),
            build=self.build,
            updated=self.updated,
            entries=entries,
            checksum=self.checksum if checksum else None,
        )
        return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse and check everything; raises TableError that names the first bad place."""
        if len(data) > MAX_TABLE_BYTES:
            raise TableError(f"table is {len(data)} bytes, the limit is {MAX_TABLE_BYTES}")
        try:
            document = msgspec.json.decode(data, type=_Document, strict=True)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise TableError(f"table is not valid JSON of schema {SCHEMA}: {error}") from error
        if document.schema != SCHEMA:
            raise TableError(f"table has schema {document.schema}, this release reads {SCHEMA}")
        if len(document.entries) > MAX_ENTRIES:
            raise TableError(f"table has {len(document.entries)} entries, limit {MAX_ENTRIES}")
        try:
            geometry, device = Geometry.parse(document.geometry), DeviceKey.parse(document.device)
        except PodAttentionError as error:
            raise TableError(f"table key: {error}") from error
        table = cls(
            version=document.version,
            geometry=geometry,
            device=device,
            build=document.build,
            updated=document.updated,
            entries=dict(_entry(*item) for item in document.entries.items()),
        )
        if document.checksum not in (None, table.checksum):
            raise TableError(
                f"checksum is {table.checksum}, the file says {str(document.checksum)[:64]!r}: it "
                "was changed or damaged since its export; export it again"
            )
        return table


def require_bearable(bucket: Bucket, config: PodConfig) -> None:
    """Raise ConfigInfeasibleError where a config cuts a bucket's decodes into too many items.

    Such a config is correct on any one step, but planning and workspace grow with the items.
    """
    split = config.decode_split_tokens
    if not split:
        return
    parts = bucket.decodes * -(-bucket.decode_context // split)
    if split < MIN_SPLIT_TOKENS or parts > max(MAX_DECODE_PARTS, bucket.decodes):
        raise ConfigInfeasibleError(
            f"decode_split_tokens {split} cuts {bucket} into {parts} decode items; at least "
            f"{MIN_SPLIT_TOKENS} tokens and at most {MAX_DECODE_PARTS} items can be planned in "
            "time. Raise decode_split_tokens, or 0 to never split"
        )


def _entry(name: str, raw: dict[str, Any]) -> tuple[Bucket, TableEntry]:
    if set(raw) != {"config", "evidence"}:
        raise TableError(f"entry {name!r} needs exactly config and evidence, got {sorted(raw)}")
    try:
        bucket, config = Bucket.parse(name), PodConfig.from_dict(raw["config"])
        require_bearable(bucket, config)
        evidence = msgspec.convert(raw["evidence"], Evidence, strict=True)
    except (PodAttentionError, msgspec.ValidationError) as error:
        raise TableError(f"entry {name[:64]!r}: {error}") from error
    if evidence.steps < MIN_STEPS:
        raise TableError(f"entry {name[:64]!r}: proven on {evidence.steps} steps, not {MIN_STEPS}")
    if evidence.lower_bound > evidence.median_speedup:
        raise TableError(
            f"entry {name[:64]!r}: lower_bound {evidence.lower_bound} is above median_speedup "
            f"{evidence.median_speedup}, which it bounds"
        )
    return bucket, TableEntry(config, evidence)
