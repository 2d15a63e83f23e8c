"""Steps that our own servers recorded: the tuner's Parquet archive, read in slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pod_integrate.errors import PodAttentionError, TraceError
from pod_integrate.replay.serving import Step
from pod_integrate.terms.keys import DeviceKey, Geometry

# Rows in memory at once.
_ROWS = 512
_COLUMNS = ["geometry", "device", "q_lens", "kv_lens", "attention_us", "layers"]


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
        q_lens, kv_lens = values["q_lens"], values["kv_lens"]
        try:
            good = all(0 <= q <= kv for q, kv in zip(q_lens, kv_lens, strict=True))
        except (TypeError, ValueError) as error:
            raise TraceError(f"{place}: lengths are malformed: {error}") from error
        if not good:
            raise TraceError(f"{place}: a kv_len is smaller than its q_len, or one is negative")
        mine = values["device"] == str(self.device)
        timed = (float(values["attention_us"]), int(values["layers"])) if mine else (0.0, 0)
        return Step(q_lens, kv_lens, *timed)


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
