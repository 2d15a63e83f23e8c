"""Where benchmarks leave their numbers: one JSON per benchmark, and the headlines of all."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import filelock
import torch

_HERE = Path(__file__).resolve().parent
# Inside a wheel the folder is not the user's to write to.
_IN_WHEEL = _HERE.parent.name == "_benchmarks"
RESULTS = Path.cwd() / "pod-attn-results" if _IN_WHEEL else _HERE / "results"


def machine() -> str:
    """Printable name of what was measured on: model and cores, no host name."""
    from pod_integrate.devices.registry import device_named, has_gpu

    if has_gpu():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"

    key = device_named("cpu").key_of()
    return f"{key.name}, {key.capability}, {key.units} cores"


def today() -> str:
    """UTC date, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def write(name: str, document: dict[str, Any]) -> Path:
    """Replace results/<name>.json in one step; machine and date are added."""
    path = RESULTS / f"{name}.json"
    _replace(path, {"machine": machine(), "date": today(), **document})
    return path


def record_headline(
    name: str, value: float, unit: str, command: str, *, where: str = "", when: str = ""
) -> None:
    """Set one entry of results/headline.json; other entries stay as they are.

    where, when  machine and date of a measurement made elsewhere; default this machine, today
    """
    path = RESULTS / "headline.json"
    RESULTS.mkdir(exist_ok=True)
    with filelock.FileLock(Path(tempfile.gettempdir()) / "pod-attention-headline.lock", timeout=60):
        entries = json.loads(path.read_text()) if path.exists() else {}
        entries[name] = {
            "value": value,
            "unit": unit,
            "command": command,
            "machine": where or machine(),
            "date": when or today(),
        }
        _replace(path, dict(sorted(entries.items())))


def _replace(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    os.replace(temporary, path)
