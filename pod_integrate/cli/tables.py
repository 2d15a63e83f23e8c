"""Tables for `pod-attn table`: out of files and tuners, compared, and in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pod_integrate.cli import asking
from pod_integrate.cli.paths import naming
from pod_integrate.errors import SettingsError, TableError
from pod_integrate.live import shipped
from pod_integrate.live.registry import read_file
from pod_integrate.redact import public_url
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import ConfigTable, TableEntry

# In the place of a file: the tables that come with the package.
SHIPPED = "shipped"
_SCOPE = ("geometry", "device", "build")


def changes(old: ConfigTable, new: ConfigTable) -> list[tuple[str, Bucket, str]]:
    """Buckets with other configs: `+` added, `-` gone or `~` changed, and to what."""
    found = []
    for bucket in sorted({*old.entries, *new.entries}, key=str):
        before, after = old.entries.get(bucket), new.entries.get(bucket)
        if before is None and after is not None:
            found.append(("+", bucket, said(after)))
        elif before is not None and after is None:
            found.append(("-", bucket, said(before)))
        elif before is not None and after is not None and before.config != after.config:
            found.append(("~", bucket, f"{said(before)}  ->  {said(after)}"))
    return found


def said(entry: TableEntry) -> str:
    """A config and what it gained."""
    return f"{entry.config.short()} ({entry.evidence.median_speedup:.3f}x)"


def rows(table: ConfigTable) -> list[tuple[Bucket, TableEntry]]:
    """The entries in the order in which they are shown."""
    return sorted(table.entries.items(), key=lambda item: str(item[0]))


def heading(table: ConfigTable) -> str:
    """What a table is of."""
    return (
        f"{table.geometry} on {table.device}, build {table.build}, version {table.version} of "
        f"{table.updated}: {len(table.entries)} buckets"
    )


def load(source: str, which: tuple[str, str, str]) -> ConfigTable:
    """The table of a file, a tuner or the package; a part of its scope chooses among several."""
    if source == SHIPPED:
        return _of_package(which)
    if source.startswith(("http://", "https://")):
        return _of_tuner(source, which)
    table = of_file(Path(source))
    names = (str(table.geometry), str(table.device), table.build)
    if any(part not in name for part, name in zip(which, names, strict=True)):
        raise SettingsError(f"{source} is of {', '.join(names)}, which was not asked for")
    return table


def of_file(path: Path) -> ConfigTable:
    """The table of a file; raises TableError for one that is damaged or changed."""
    with naming(path):
        body = read_file(path)
    return _read(body, str(path))


def _read(body: bytes, source: str) -> ConfigTable:
    try:
        return ConfigTable.from_json(body)
    except TableError as error:
        raise TableError(f"{source}: {error}") from error


def _of_tuner(url: str, which: tuple[str, str, str]) -> ConfigTable:
    overview = asking.document(asking.Overview, "GET", url, "/v1/overview")
    tables = [msgspec.structs.asdict(row) for row in overview.tables]
    found = [
        row for row in tables
        if all(part in row[name] for name, part in zip(_SCOPE, which, strict=True))
    ]  # fmt: skip
    if len(found) != 1:
        rows = found or tables
        names = "".join(f"\n  {', '.join(row[name] for name in _SCOPE)}" for row in rows)
        what = "several tables; choose by --geometry, --device, --build" if found else "no such one"
        said = what if tables else "no table yet"
        raise SettingsError(f"tuner {public_url(url)} has {said}{names}")
    body = asking.fetch("GET", url, "/v1/table", params=found[0])
    return _read(body, f"table of {public_url(url)}")


def _of_package(which: tuple[str, str, str]) -> ConfigTable:
    tables = shipped.everything()
    keys = [(str(table.geometry), str(table.device), table.build) for table in tables]
    found = [
        table
        for table, key in zip(tables, keys, strict=True)
        if all(part in name for part, name in zip(which, key, strict=True))
    ]
    # A whole key is meant, though others may go on with it.
    exact = [table for table in found if str(table.geometry) == which[0]]
    if len(found) != 1 and len(exact) != 1:
        chosen = [key for table, key in zip(tables, keys, strict=True) if table in found]
        names = "".join(f"\n  {', '.join(key)}" for key in chosen or keys)
        what = "several tables; choose by --geometry, --device, --build" if found else "no such one"
        raise SettingsError(f"the package has {what if tables else 'no table yet'}{names}")
    return (found if len(found) == 1 else exact)[0]


def document(path: Path) -> dict[str, Any]:
    """A file as it is, checksum included."""
    with naming(path):
        return msgspec.json.decode(read_file(path), type=dict[str, Any])
