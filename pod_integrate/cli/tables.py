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
# What a table is of, or parts of that, in the order of _SCOPE.
_Key = tuple[str, str, str]


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


def heading(table: ConfigTable) -> str:
    """What a table is of."""
    return (
        f"{table.geometry} on {table.device}, build {table.build}, version {table.version} of "
        f"{table.updated}: {len(table.entries)} buckets"
    )


def load(source: str, which: _Key) -> ConfigTable:
    """The table of a file, a tuner or the package; a part of its scope chooses among several."""
    if source == SHIPPED:
        return _of_package(which)
    if source.startswith(("http://", "https://")):
        return _of_tuner(source, which)
    table = of_file(Path(source))
    key = _key_of(table)
    if not _has(key, which):
        raise SettingsError(f"{source} is of {', '.join(key)}, which was not asked for")
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


def _of_tuner(url: str, which: _Key) -> ConfigTable:
    overview = asking.document(asking.Overview, "GET", url, "/v1/overview")
    keys = [(row.geometry, row.device, row.build) for row in overview.tables]
    key = _chosen(keys, which, f"tuner {public_url(url)}")
    scope = dict(zip(_SCOPE, key, strict=True))
    return _read(asking.fetch("GET", url, "/v1/table", params=scope), f"table of {public_url(url)}")


def _of_package(which: _Key) -> ConfigTable:
    tables = {_key_of(table): table for table in shipped.everything()}
    return tables[_chosen(list(tables), which, "the package")]


def _key_of(table: ConfigTable) -> _Key:
    return str(table.geometry), str(table.device), table.build


def _chosen(keys: list[_Key], which: _Key, owner: str) -> _Key:
    """The only key that has all parts of `which`; raises SettingsError that lists what there is."""
    found = [key for key in keys if _has(key, which)]
    # A part that is named whole is meant, though others may go on with it.
    for i, part in enumerate(which):
        found = [key for key in found if key[i] == part] or found
    if len(found) == 1:
        return found[0]
    names = "".join(f"\n  {', '.join(key)}" for key in found or keys)
    what = "several tables; choose by --geometry, --device, --build" if found else "no such one"
    raise SettingsError(f"{owner} has {what if keys else 'no table yet'}{names}")


def _has(key: _Key, which: _Key) -> bool:
    return all(part in name for part, name in zip(which, key, strict=True))


def document(path: Path) -> dict[str, Any]:
    """A file as it is, checksum included."""
    with naming(path):
        return msgspec.json.decode(read_file(path), type=dict[str, Any])
