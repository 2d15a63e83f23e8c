"""Steps that our own servers recorded: the tuner's Parquet archive, read in slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pod_integrate.errors import PodAttentionError, TraceError
from pod_integrate.replay.serving import Step
from pod_integrate.terms import wire
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.trace import StepLengths

# Rows in memory at once.
_ROWS = 512


class _Row(msgspec.Struct, frozen=True):
    """A step of the archive, within the bounds of what a tuner took; the columns that count."""

    geometry: str
    device: str
    q_lens: StepLengths
    kv_lens: StepLengths
    attention_us: wire.Micros
    layers: wire.Layers


_COLUMNS = list(_Row.__struct_fields__)


@dataclasses.dataclass
class Recorded:
    """Steps of one geometry in files of the archive.

    files     in the order in which they are read
    geometry  of the steps; those of others are left out
    device    whose times count; steps of other devices have none
    others    steps of other geometries so far
    """

    files: list[Path]
    geometry: Geometry
    device: DeviceKey
    others: int = 0

    def steps(self) -> Iterator[Step]:
        """Raises TraceError that names file and row of what is malformed."""
        for path in self.files:
            row = 0
            for table in _slices(path):
                for values in table:
                    row += 1
                    step = self._step(values, f"{path}: row {row}")
                    if step is not None:
                        yield step

    def _step(self, values: dict[str, Any], place: str) -> Step | None:
        if values["geometry"] != str(self.geometry):
            self.others += 1
            return None
        try:
            row = msgspec.convert(values, _Row)
        except msgspec.ValidationError as error:
            raise TraceError(
                f"{place}: {error}; expected a step that a tuner of ours archived"
            ) from error
        wire.check_lengths(row.q_lens, row.kv_lens, place)
        timed = (row.attention_us, row.layers) if row.device == str(self.device) else (0.0, 0)
        return Step(row.q_lens, row.kv_lens, *timed)


def files_of(path: Path) -> list[Path]:
    """The files of a folder, oldest first, or the file itself."""
    if not path.is_dir():
        return [path]
    return sorted(path.glob("*.parquet"), key=lambda file: (file.stat().st_mtime_ns, file.name))


def geometry_of(path: Path) -> Geometry:
    """Geometry of the first recorded step; raises TraceError where there is none."""
    for table in _slices(path):
        for values in table:
            try:
                return Geometry.parse(str(values["geometry"]))
            except PodAttentionError as error:
                raise TraceError(f"{path}: row 1: {error}") from error
    raise TraceError(f"trace file {path} holds no step")


def _slices(path: Path) -> Iterator[list[dict[str, Any]]]:
    try:
        with pq.ParquetFile(path) as file:
            missing = set(_COLUMNS) - set(file.schema_arrow.names)
            if missing:
                raise TraceError(
                    f"{path} has no column {', '.join(sorted(missing))}; expected a file of a "
                    "tuner's trace archive"
                )
            for batch in file.iter_batches(_ROWS, columns=_COLUMNS):
                yield batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"trace file {path} cannot be read: {error}") from error
