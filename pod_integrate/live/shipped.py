"""Tables of tuned configs that come with the package, one file per device and geometry.

Each is what `pod-attn table export` writes: measured on that very device with that very kernel
build (`python -m benchmarks.gpu tables`), every entry with its evidence.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pod_integrate.errors import TableError
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parents[1] / "shipped_tables"


def file_of(geometry: Geometry, device: DeviceKey, folder: Path = FOLDER) -> Path:
    """Where the table of a geometry on a device is, if there is one."""
    return _of_device(device, folder) / f"{geometry}.json"


def files(device: DeviceKey, folder: Path = FOLDER) -> list[Path]:
    """All of a device."""
    return sorted(_of_device(device, folder).glob("*.json"))


def everything(folder: Path = FOLDER) -> list[ConfigTable]:
    """Every table of the package, by device and geometry; raises TableError for a damaged one."""
    return [_read(path) for path in sorted(folder.glob("*/*.json"))]


def load(
    geometry: Geometry, device: DeviceKey, build: str, folder: Path = FOLDER
) -> ConfigTable | None:
    """The table for a geometry, device and kernel build; None where none was shipped for these.

    Times of another kernel build say nothing about this one: such a table is not used, and that is
    logged. A damaged one is logged too.
    """
    path = file_of(geometry, device, folder)
    try:
        table = _read(path)
    except FileNotFoundError:
        return None
    except (OSError, TableError) as error:
        logger.error("shipped table not used: %s", error)
        return None
    if (table.geometry, table.device) != (geometry, device):
        logger.error(
            "shipped table %s is of %s on %s: not used", path, table.geometry, table.device
        )
        return None
    if table.build != build:
        logger.info(
            "shipped table of %s was measured with %s, this is %s: defaults apply",
            *(geometry, table.build, build),
        )
        return None
    return table


def _of_device(device: DeviceKey, folder: Path) -> Path:
    # A colon is no character for file names everywhere.
    return folder / str(device).replace(":", "_")


def _read(path: Path) -> ConfigTable:
    try:
        return ConfigTable.from_json(path.read_bytes())
    except TableError as error:
        raise TableError(f"{path}: {error}") from error
