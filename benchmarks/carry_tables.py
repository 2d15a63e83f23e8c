"""Shipped tables follow the kernel's sources where these changed in nothing that takes time.

    python -m benchmarks.carry_tables BEFORE [--although WHY]

A table that ships counts for one build of the kernel, told by a digest of its sources. BEFORE is a
checkout of those that the tables of this one were measured with. Tables become those of the present
build where both read the same without comments and white space, or else where the kernels that
attend have, for every variant that they name, the same registers and shared memory and, counted by
opcode, at most 1 % other instructions. A merge may change: all configs have the same one. What an
entry's evidence says of the build that was measured stays. Entries of a bucket whose steps the
default now runs with other tiles, or cuts into other items, are dropped: they were proven against
what it did then. Otherwise nothing is written, what differs is named, and the exit code is 1:
measure again, `python -m benchmarks.gpu tables`. Until there is a GPU for that, `--although` says
why what differs is the same to all configs, so that which of them is quicker stays likely.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _results, default_choices, kernel_same
from benchmarks.gpu.shipped.served import BATCHES, SERVED
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.batch_tiles import all_of
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.live import shipped
from pod_integrate.terms.table import ConfigTable

COMMAND = "python -m benchmarks.carry_tables BEFORE"
_SHARE = 0.01
_ATTEND = ("prefill", "decode", "fused")

_ASK = """
import json
from pod_integrate.builds import native, nvcc
roots = [str(native.sources_dir() / "cuda"), str(native.common_dir())]
print(json.dumps({"build": nvcc.build_id(), "roots": roots, "flags": nvcc._FLAGS}))
"""
_SOURCES = (".cu", ".cuh", ".h", ".cpp")
# A string is matched first, so that nothing in it is taken for a comment.
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.S)
_HERE = Path(__file__).resolve().parents[1]


def ask(tree: Path, script: str = _ASK) -> dict[str, Any]:
    """What a script prints that runs with a checkout's code: its build id, sources and flags."""
    env = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tree, env=env, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{tree}: {done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def code(text: str) -> str:
    """What a compiler sees: lines of directives stay lines, other white space is one blank."""
    bare = _COMMENT.sub(lambda found: found[1] or " ", text)
    lines = (" ".join(line.split()) for line in bare.replace("\\\n", " ").splitlines())
    return " ".join(f"\n{line}\n" if line.startswith("#") else line for line in lines if line)


def sources(roots: list[str]) -> dict[str, str]:
    """The code of every source below the roots, by its place."""
    return {
        f"{number}/{path.relative_to(root)}": code(path.read_text())
        for number, root in enumerate(roots)
        for path in sorted(Path(root).rglob("*"))
        if path.suffix in _SOURCES
    }


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Sources that a compiler would read otherwise, and `flags`."""
    old, new = sources(before["roots"]), sources(after["roots"])
    found = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    return [*found, *(["flags"] if before["flags"] != after["flags"] else [])]


def variants(tables: Iterable[ConfigTable]) -> list[str]:
    """What the tables' entries run, whatever the batch, as kernel_same names it."""
    names = [
        f"{limits.architecture(table.device.capability).name}-"
        f"{Variant.of(config, table.geometry).name}"
        for table in tables
        for entry in table.entries.values()
        for config in all_of(entry.config, table.geometry, table.device)
    ]
    return list(dict.fromkeys(names))


def apart(row: dict[str, Any]) -> str:
    """Why a variant, by what kernel_same says of it, may be slower than before; or nothing."""
    kernels = {name: row["kernels"][name] for name in _ATTEND}
    resources = (kernel["resources"] for kernel in kernels.values())
    if not row["same_smem"] or any(old != new for old, new in resources):
        return "other registers or shared memory"
    for name, kernel in kernels.items():
        changed = kernel.get("opcodes", {}).values()
        share = sum(abs(old - new) for old, new in changed) / max(kernel["instructions"])
        if share > _SHARE:
            return f"{100 * share:.1f} % other instructions in {name}"
    return ""


def compiled_apart(before: Path, tables: Sequence[ConfigTable]) -> list[str]:
    """Variants of the tables whose machine code is another in both checkouts, and how."""
    names = variants(tables)
    sides = [kernel_same.ask(tree, 2, *names) for tree in (before, _HERE)]
    rows = [kernel_same.look(name, [side[name] for side in sides]) for name in names]
    return [f"{row['variant']}: {why}" for row in rows if (why := apart(row))]


def record(tables: Sequence[ConfigTable]) -> None:
    """Headlines of what ships now."""
    entries = [entry.evidence for table in tables for entry in table.entries.values()]
    geometries = sum(bool(table.entries) for table in tables)
    gain = statistics.geometric_mean([one.median_speedup for one in entries])
    searched = len(SERVED) * len(BATCHES)
    unit = f"geometries, {len(entries)} of {searched} buckets"
    where = ", ".join(sorted({_told(table.device.name) for table in tables}))
    when = max(one.measured_at for one in entries)[:10]
    # Of the builds that were measured, which a carried table is not of.
    of_before = {entry.build for entry in entries} - {table.build for table in tables}
    told_gain = "x, with kernels before" if of_before else "x"
    both = (("geometries", geometries, unit), ("speedup_geomean", gain, told_gain))
    for name, value, told in both:
        headline = f"tables.shipped_{name}"
        _results.record_headline(headline, value, told, COMMAND, where=where, when=when)


def _told(device: str) -> str:
    """Name of a device as those who measured the tables tell it."""
    told = str(json.loads((_results.RESULTS / "gpu_tables.json").read_text())["gpu"])
    return told if told.lower().replace(" ", "-") == device else device


def rechosen(before: Path) -> dict[str, set[str]]:
    """By device the "geometry bucket" that the default of both checkouts runs otherwise."""
    script = Path(default_choices.__file__).read_text()
    old, new = ask(before, script), ask(_HERE, script)
    return {
        device: {place for place, told in choices.items() if old.get(device, {}).get(place) != told}
        for device, choices in new.items()
    }


def carried(
    table: ConfigTable, before: str, after: str, dropped: Collection[str] = ()
) -> ConfigTable:
    """The table under another build id, without buckets that are dropped ("geometry bucket").

    One of a third build stays as it is.
    """
    if table.build != before:
        return table
    kept = {b: e for b, e in table.entries.items() if f"{table.geometry} {b}" not in dropped}
    return dataclasses.replace(table, build=after, entries=kept)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument(
        "--although", metavar="WHY", help="carry what other machine code runs, for this reason"
    )
    options = parser.parse_args(arguments)
    before, after = ask(options.before.resolve()), ask(_HERE)
    tables = [table for table in shipped.everything() if table.build == before["build"]]
    if names := differing(before, after):
        print(f"the compiler reads {len(names)} sources otherwise: {', '.join(names)}")
        if reasons := compiled_apart(options.before, tables):
            print("\n".join(reasons))
            if not options.although:
                sys.exit("not carried: measure again, python -m benchmarks.gpu tables")
            print(f"carried although: {options.although}")
    if not tables:
        sys.exit(f"no shipped table is of {before['build']}, which {options.before} has")
    dropped = rechosen(options.before.resolve())
    for path in sorted(shipped.FOLDER.glob("*/*.json")):
        table = ConfigTable.from_json(path.read_bytes())
        new = carried(table, before["build"], after["build"], dropped[str(table.device)])
        for bucket in table.entries.keys() - new.entries.keys():
            print(f"{table.geometry} {bucket}: dropped, its default is another now")
        path.write_bytes(new.to_json(checksum=True))
        if not new.entries:
            path.unlink()
    print(f"{len(tables)} tables are of {after['build']} now, measured with {before['build']}")
    record(shipped.everything())


if __name__ == "__main__":
    main()
