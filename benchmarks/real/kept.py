"""What has been answered so far, in a file that an interrupted run goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Kept:
    """Values by (stage, key), one JSON line each, written as they come.

    A last line that was cut off is left out. A file of another `job` is begun anew.

    job      what must be equal for values to count: model, texts, engine
    reading  leave the file as it is: somebody else may be writing
    """

    def __init__(self, path: Path, job: str, *, reading: bool = False) -> None:
        self._path = path
        self._values: dict[tuple[str, int], Any] = {}
        lines = path.read_text().splitlines() if path.is_file() else []
        rows = [row for row in map(_row, lines) if row is not None]
        if rows and rows[0].get("job") == job:
            self._values = {(row["stage"], row["key"]): row["value"] for row in rows[1:]}
        if reading:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = [{"job": job}, *(_line(*at, value) for at, value in self._values.items())]
        path.write_text("".join(json.dumps(row) + "\n" for row in whole))

    def has(self, stage: str, key: int) -> bool:
        """Whether there is a value."""
        return (stage, key) in self._values

    def add(self, stage: str, key: int, value: Any) -> None:
        """Keep it, in the file too."""
        self._values[stage, key] = value
        with self._path.open("a") as file:
            file.write(json.dumps(_line(stage, key, value)) + "\n")

    def stage(self, name: str) -> dict[int, Any]:
        """Values of a stage by key."""
        return {key: value for (stage, key), value in self._values.items() if stage == name}


def _line(stage: str, key: int, value: Any) -> dict[str, Any]:
    return {"stage": stage, "key": key, "value": value}


def _row(line: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        # Cut off by the end of a machine.
        return None
    return found
