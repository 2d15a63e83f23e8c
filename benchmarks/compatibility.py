"""Draws what docs/compatibility.toml says of SGLang's features into docs/sglang.md.

python -m benchmarks.compatibility
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from benchmarks.gpu.visit.tables import replaced

_ROOT = Path(__file__).resolve().parents[1]
SOURCE, PAGE = _ROOT / "docs" / "compatibility.toml", _ROOT / "docs" / "sglang.md"
MARK = "compatibility"


def load() -> dict[str, Any]:
    """The file as it is; a malformed one raises tomllib.TOMLDecodeError."""
    return tomllib.loads(SOURCE.read_text())


def drawn(document: dict[str, Any]) -> str:
    """The rows of sglang.md."""
    versions = document["sglang"]
    lines = [
        f"| feature | {' | '.join(versions)} | |",
        f"|---|{'---|' * len(versions)}---|",
    ]
    for feature in document["feature"]:
        name = feature["name"]
        if "flags" in feature:
            name += f" (`{feature['flags']}`)"
        known = " | ".join(feature["known"][version] for version in versions)
        lines.append(f"| {name} | {known} | {_remark(feature)} |")
    return "\n".join(lines)


def _remark(feature: dict[str, Any]) -> str:
    said = [f"`{feature['instead']}`"] if feature.get("instead", "").startswith("--") else []
    if "instead" in feature and not said:
        said = [feature["instead"]]
    return "; ".join([*said, *([feature["note"]] if "note" in feature else [])])


def main() -> None:
    """Rewrite the table."""
    PAGE.write_text(replaced(PAGE.read_text(), MARK, drawn(load())))


if __name__ == "__main__":
    main()
