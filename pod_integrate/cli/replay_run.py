"""What `pod-attn replay` does: reads a log, and tells its buckets or tunes for them."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pod_integrate.cli.explain import GEOMETRY
from pod_integrate.cli.paths import write_whole
from pod_integrate.cli.terminal import Figures, console
from pod_integrate.devices.base import Device
from pod_integrate.devices.registry import device_named
from pod_integrate.errors import SettingsError
from pod_integrate.replay import requests
from pod_integrate.replay.serving import Rules, Serving, Step
from pod_integrate.replay.tally import Tally
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable

_LOOK_SECONDS = 0.25
_OWN = ("auto", "cpu", "cuda")
# Buckets below so much of the time are not worth a search either.
_SMALL = 0.002


class Wanted(NamedTuple):
    """The command's options."""

    file: Path
    rules: Rules
    steps: int
    geometry: str | None
    device: str
    layers: int
    seconds: float
    trials: int
    table: Path | None
    state: Path | None
    top: int
    as_json: bool


class _Log(NamedTuple):
    """Steps of a file, and the model that made them of requests, where it did."""

    steps: Iterator[Step]
    geometry: Geometry
    serving: Serving | None


def look(wanted: Wanted) -> None:
    """Print the buckets; Ctrl-C prints those of what was read so far."""
    key = _key(wanted.device)
    log = _open(wanted, key)
    tally = Tally(log.geometry, key)
    try:
        for step in _watched(log, wanted.steps):
            tally.add(step)
    except KeyboardInterrupt:
        _print(wanted, tally, log, {"ended": "interrupted"})
        raise
    _print(wanted, tally, log, {})


def tune(wanted: Wanted) -> None:
    """Tune for the log on this machine; Ctrl-C keeps what was promoted."""
    from pod_integrate.replay.tune import Looked, Replay

    device = _own(wanted.device)
    log = _open(wanted, device.key)
    tally = Tally(log.geometry, device.key)
    screen, ended = console(stderr=True), "interrupted"
    with _folder(wanted.state) as state, screen.status("loading the kernel") as status:
        device.load()
        run = Replay(state, device, log.geometry, layers=wanted.layers, trials=wanted.trials)

        def looked(at: Looked) -> None:
            status.update(f"{at.tasks} tasks, {at.promoted} promoted; measuring {at.bucket}")

        stopped: KeyboardInterrupt | None = None
        try:
            run.feed(_watched(log, wanted.steps, status.update), tally)
            ended = run.tune(wanted.seconds, looked)
        except KeyboardInterrupt as error:
            stopped = error
        finally:
            table = run.table()
            run.close()
    # First, so that what minutes of measuring found is not lost where the disk is full.
    _print(wanted, tally, log, {"ended": ended, "promoted": _promoted(table)})
    _write(wanted, table)
    if stopped is not None:
        raise stopped


def _open(wanted: Wanted, key: DeviceKey) -> _Log:
    if requests.is_recorded(wanted.file):
        # Parquet and its columns are loaded by those who have such files.
        from pod_integrate.replay.recorded import Recorded, files_of, geometry_of

        files = files_of(wanted.file)
        geometry = _geometry(wanted.geometry) or geometry_of(files[0])
        return _Log(Recorded(files, geometry, key).steps(), geometry, None)
    serving = Serving(wanted.rules)
    geometry = _geometry(wanted.geometry) or Geometry.parse(GEOMETRY)
    return _Log(serving.steps(requests.read(wanted.file)), geometry, serving)


def _geometry(text: str | None) -> Geometry | None:
    return None if text is None else Geometry.parse(text)


def _own(name: str) -> Device:
    if name not in _OWN:
        raise SettingsError(
            f"--device {name}: a replay is measured on this machine: {', '.join(_OWN)}; other GPUs "
            "only weigh batches, with --dry"
        )
    return device_named(name)


def _key(name: str) -> DeviceKey:
    """Whose rates weigh batches: this machine's, or a GPU of the cost model."""
    from pod_integrate.model.devices import find_device

    return device_named(name).key if name in _OWN else find_device(name).key


def _watched(log: _Log, most: int, told: Callable[[str], None] | None = None) -> Iterator[Step]:
    """The first steps of a log, with a line on the terminal that says how far it is."""
    with contextlib.ExitStack() as open_until_here:
        if told is None:
            told = open_until_here.enter_context(console(stderr=True).status("reading")).update
        shown = time.monotonic()
        for read, step in enumerate(itertools.islice(log.steps, most), start=1):
            if time.monotonic() - shown > _LOOK_SECONDS:
                shown = time.monotonic()
                told(f"reading: {read:,} steps{_of(log.serving)}")
            yield step


def _of(serving: Serving | None) -> str:
    return "" if serving is None else f" of {serving.requests:,} requests"


@contextlib.contextmanager
def _folder(state: Path | None) -> Iterator[Path]:
    if state is not None:
        yield state
        return
    with tempfile.TemporaryDirectory(prefix="pod-replay-") as made:
        yield Path(made)


def _write(wanted: Wanted, table: ConfigTable | None) -> None:
    if wanted.table is None:
        return
    if table is not None:
        write_whole(wanted.table, table.to_json(checksum=True))
    if not wanted.as_json:
        said = "no table was written" if table is None else f"table in {wanted.table}"
        console().print(said, soft_wrap=True)


def _print(wanted: Wanted, tally: Tally, log: _Log, outcome: dict[str, Any]) -> None:
    document = tally.document() | outcome
    if log.serving is not None:
        document |= {"requests": log.serving.requests, "too_long": log.serving.too_long}
    screen = console()
    if wanted.as_json:
        screen.print_json(json.dumps(document))
        return
    if tally.steps:
        screen.print(_figures(document, wanted.top))
    for line in _said(document, log):
        screen.print(line, soft_wrap=True)


def _promoted(table: ConfigTable | None) -> dict[str, Any]:
    entries: Iterable[tuple[Bucket, Any]] = () if table is None else table.entries.items()
    return {
        str(bucket): {
            "config": entry.config.short(),
            "median_speedup": entry.evidence.median_speedup,
            "lower_bound": entry.evidence.lower_bound,
        }
        for bucket, entry in entries
    }


def _figures(document: dict[str, Any], top: int) -> Figures:
    promoted = document.get("promoted")
    columns = ["bucket", "steps", "time", "sum"]
    if promoted is not None:
        columns += ["speed-up", "at least", "config"]
    figures = Figures(columns, words=frozenset({"config"}))
    so_far = 0.0
    for row in document["buckets"][:top]:
        so_far += row["time_share"]
        cells = [row["bucket"], f"{row['steps']:,}", f"{row['time_share']:.1%}", f"{so_far:.1%}"]
        if promoted is not None:
            found = promoted.get(row["bucket"])
            cells += ["-", "-", "default"] if found is None else [
                f"{found['median_speedup']:.3f}x", f"{found['lower_bound']:.3f}x", found["config"]
            ]  # fmt: skip
        figures.add_row(*cells)
    return figures


def _said(document: dict[str, Any], log: _Log) -> Iterator[str]:
    steps, buckets = document["steps"], document["buckets"]
    hybrid = f"{document['hybrid_steps'] / max(1, steps):.0%}"
    worth = sum(row["time_share"] >= _SMALL for row in buckets)
    yield (
        f"{steps:,} steps{_of(log.serving)}, {hybrid} of them hybrid, in {len(buckets)} buckets, "
        f"of which {worth} have {_SMALL:.1%} of attention time or more"
    )
    yield f"geometry {document['geometry']}, device {document['device']}"
    if document.get("too_long"):
        yield f"{document['too_long']} requests are longer than the budget and were left out"
    if "promoted" in document:
        yield f"{len(document['promoted'])} configs promoted: {document['ended']}"
    elif "ended" in document:
        yield document["ended"]
