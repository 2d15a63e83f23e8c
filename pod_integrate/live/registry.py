"""The config table in use, swapped atomically while other threads look configs up."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path

from pod_integrate.devices.registry import target_of
from pod_integrate.errors import PodAttentionError, TableError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import MAX_TABLE_BYTES, ConfigTable, Lookup, TableEntry

logger = logging.getLogger(__name__)

_DEFAULT = Lookup(None, "default")


class ActiveTable:
    """Holds the last good table of one (geometry, device, build).

    `lookup` is one attribute read and a dict look-up, safe from any thread; `offer` replaces the
    table whole or raises TableError and changes nothing. An entry acts in its own bucket only, and
    not before its config is ready (readiness.py): one that cannot be built costs itself only.

    Beneath it may lie a shipped table, which acts in buckets that no table in use has listed yet: a
    bucket that was taken back runs the default, not what it had before anybody measured it here.
    """

    def __init__(self, geometry: Geometry, device: DeviceKey, build: str) -> None:
        self.geometry, self.device, self.build = geometry, device, build
        # Read once per call, so that a reader never pairs two versions.
        self._table: ConfigTable | None = None
        self._shipped: dict[Bucket, TableEntry] = {}

    @property
    def shipped(self) -> int:
        """Buckets in which an entry of a shipped table acts."""
        return len(self._shipped)

    @property
    def version(self) -> int:
        """Version of the table in use, 0 when there is none."""
        table = self._table
        return table.version if table is not None else 0

    def lookup(self, bucket: Bucket) -> Lookup:
        """Config for a bucket; its `config` is None when the default applies."""
        table = self._table
        found = _DEFAULT if table is None else table.lookup(bucket)
        if found.config is None and self._shipped:
            entry = self._shipped.get(bucket)
            return found if entry is None else Lookup(entry.config, "exact")
        return found

    def decode_configs(self, decodes: int) -> dict[Bucket, PodConfig]:
        """Of buckets that hold so many decodes, a power of two, and nothing else."""
        table = self._table
        own = {} if table is None else table.entries
        return {
            bucket: entry.config
            for bucket, entry in {**self._shipped, **own}.items()
            if bucket.sides == "decode" and bucket.decodes == decodes
        }

    def offer(self, data: bytes) -> ConfigTable:
        """Take a serialized table into use; raises TableError and keeps the old one if it is bad.

        A table that was measured on another geometry, device or kernel build is bad: its times
        say nothing here. So is one with a config that cannot run here: it would fail a step.
        """
        table = ConfigTable.from_json(data)
        self._require_mine(table)
        # Before the table itself, which is looked at first.
        self._shipped = {b: e for b, e in self._shipped.items() if b not in table.entries}
        self._table = table
        logger.info("config table version %d in use, %d buckets", table.version, len(table.entries))
        return table

    def ship(self, table: ConfigTable) -> None:
        """Lay a table of the package beneath; raises TableError as `offer`. Once, at the start."""
        self._require_mine(table)
        self._shipped = dict(table.entries)

    def _require_mine(self, table: ConfigTable) -> None:
        for name in ("geometry", "device", "build"):
            mine, theirs = str(getattr(self, name)), str(getattr(table, name))
            if mine != theirs:
                raise TableError(f"table is for {name} {theirs}, this process runs {mine}")
        for bucket, entry in table.entries.items():
            try:
                target_of(self.device).require_feasible(entry.config, self.geometry)
            except PodAttentionError as error:
                raise TableError(f"entry {str(bucket)!r}: {error}") from error

    def load_file(self, path: Path) -> ConfigTable | None:
        """Take the table file at `path`; a missing or bad file is logged and leaves all as is."""
        try:
            return self.offer(read_file(path))
        except FileNotFoundError:
            logger.info("no config table at %s yet; defaults apply", path)
        except (OSError, TableError) as error:
            logger.error("config table %s rejected, the last good one stays: %s", path, error)
        return None


def read_file(path: Path) -> bytes:
    """What a table's file has, cut where no table goes on; raises OSError.

    Neither a pipe that nobody writes to nor a device without an end holds up a start.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is no regular file")
    with path.open("rb") as file:
        return file.read(MAX_TABLE_BYTES + 1)


def geometry_of_file(path: Path) -> Geometry | None:
    """The geometry that a file has a table of, None where it has none."""
    try:
        return ConfigTable.from_json(read_file(path)).geometry
    except (OSError, TableError):
        return None


def save_file(path: Path, data: bytes) -> None:
    """Replace the file at `path` whole, for `ActiveTable.load_file` of a later process.

    Raises OSError and leaves the old file as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
