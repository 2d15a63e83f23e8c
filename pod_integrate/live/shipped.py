"""Tables of tuned configs that come with the package, one file per device and geometry.

Each is what `pod-attn table export` writes: measured on that very device with that very kernel
build (`python -m benchmarks.gpu tables`), every entry with its evidence.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pod_integrate.errors import TableError
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parents[1] / "shipped_tables"


def file_of(geometry: Geometry, device: DeviceKey, folder: Path | None = None) -> Path:
    """Where the table of a geometry on a device is, if there is one.

    folder  in the place of the package's
    """
    return _of_device(device, folder) / f"{geometry}.json"


def files(device: DeviceKey, folder: Path | None = None) -> list[Path]:
    """All of a device."""
    return sorted(_of_device(device, folder).glob("*.json"))


def everything(folder: Path | None = None) -> list[ConfigTable]:
    """Every table of the package, by device and geometry; raises TableError for a damaged one."""
    return [_read(path) for path in sorted((folder or FOLDER).glob("*/*.json"))]


def are_of(device: DeviceKey) -> bool:
    """Whether a device has any."""
    return bool(files(device))


def lay_beneath(active: ActiveTable) -> None:
    """Give a group the shipped table of its geometry, device and kernel build, if there is one.

    Times of another build say nothing about this one: such a table is not used, and that is logged.
    So is a damaged one.
    """
    path = file_of(active.geometry, active.device)
    try:
        table = _read(path)
        if table.build == active.build:
            active.ship(table)
            return
        logger.warning(
            "shipped table of %s was measured with kernel %s and is not used with %s",
            *(active.geometry, table.build, active.build),
        )
    except FileNotFoundError:
        return
    except (OSError, TableError) as error:
        logger.error("shipped table not used: %s", error)


def _of_device(device: DeviceKey, folder: Path | None) -> Path:
    # A colon is no character for file names everywhere.
    return (folder or FOLDER) / str(device).replace(":", "_")


def _read(path: Path) -> ConfigTable:
    try:
        return ConfigTable.from_json(path.read_bytes())
    except TableError as error:
        raise TableError(f"{path}: {error}") from error
