"""Shipped tables follow the kernel's sources where these changed in nothing that a compiler sees.

    python benchmarks/carry_tables.py BEFORE

A table that ships counts for one build of the kernel, told by a digest of its sources. BEFORE is a
checkout of those that the tables of this one were measured with. Where both read the same without
comments and white space, tables become those of the present build; what an entry's evidence says of
the build that was measured stays. Otherwise nothing is written, the files that differ are named,
and the exit code is 1: measure again, `python -m benchmarks.gpu tables`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from pod_integrate.live import shipped
from pod_integrate.terms.table import ConfigTable

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


def ask(tree: Path) -> dict[str, Any]:
    """Build id, source folders and flags of a checkout, in its own words."""
    env = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", _ASK], cwd=tree, env=env, capture_output=True, text=True
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


def carried(table: ConfigTable, before: str, after: str) -> ConfigTable:
    """The table under another build id; one of a third build stays as it is."""
    return dataclasses.replace(table, build=after) if table.build == before else table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path, help="a checkout")
    options = parser.parse_args(arguments)
    before, after = ask(options.before.resolve()), ask(_HERE)
    if names := differing(before, after):
        sys.exit(f"the compiler reads {len(names)} sources otherwise: {', '.join(names)}")
    moved = 0
    for path in sorted(shipped.FOLDER.glob("*/*.json")):
        table = ConfigTable.from_json(path.read_bytes())
        new = carried(table, before["build"], after["build"])
        path.write_bytes(new.to_json(checksum=True))
        moved += new.build != table.build
    print(f"{moved} tables are of {after['build']} now, measured with {before['build']}")


if __name__ == "__main__":
    main()
