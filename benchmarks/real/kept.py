"""What has been answered so far, in a file that an interrupted run goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Kept:
    """Values by (stage, key), one JSON line each, written as they come.

    A last line that was cut off is left out, as are values of another job: a stage that is asked
    something else is begun anew, the others keep theirs.

    job      what must be equal for values to count: model, texts, engine; of all or by stage
    reading  leave the file as it is: somebody else may be writing
    """

    def __init__(self, path: Path, job: str | Mapping[str, str], *, reading: bool = False) -> None:
        self._path, self._job = path, job
        lines = path.read_text().splitlines() if path.is_file() else []
        rows = [row for row in map(_row, lines) if row is not None]
        self._values = {
            (row["stage"], row["key"]): row["value"]
            for row in rows
            if "stage" in row and row.get("job") == self._job_of(row["stage"])
        }
        if reading:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(self._line(*at, value) for at, value in self._values.items()))

    def has(self, stage: str, key: int) -> bool:
        """Whether there is a value."""
        return (stage, key) in self._values

    def add(self, stage: str, key: int, value: Any) -> None:
        """Keep it, in the file too."""
        self._values[stage, key] = value
        with self._path.open("a") as file:
            file.write(self._line(stage, key, value))

    def stage(self, name: str) -> dict[int, Any]:
        """Values of a stage by key."""
        return {key: value for (stage, key), value in self._values.items() if stage == name}

    def _job_of(self, stage: str) -> str | None:
        return self._job if isinstance(self._job, str) else self._job.get(stage)

    def _line(self, stage: str, key: int, value: Any) -> str:
        row = {"job": self._job_of(stage), "stage": stage, "key": key, "value": value}
        return json.dumps(row) + "\n"


def _row(line: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        # Cut off by the end of a machine.
        return None
    return found
