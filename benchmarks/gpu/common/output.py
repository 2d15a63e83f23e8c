"""Where results go: one JSON per part, rewritten whole after every step so that nothing is lost."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

BACKENDS = ("cuda", "emulator")


def default_folder() -> Path:
    """$OUT where a job runner sets it, else ./pod-attn-results."""
    return Path(os.environ.get("OUT") or "pod-attn-results")


def add_output(
    parser: argparse.ArgumentParser, *, refused: Mapping[str, str] = MappingProxyType({})
) -> None:
    """The options that every part has.

    refused  backends that the part cannot run on -> why
    """

    def backend(name: str) -> str:
        if name in refused:
            raise argparse.ArgumentTypeError(refused[name])
        return name

    parser.add_argument("--out", type=Path, default=default_folder(), help="folder for JSON")
    parser.add_argument(
        "--backend",
        type=backend,
        choices=BACKENDS,
        default="cuda",
        help="emulator: tiny shapes on the emulated SM, to try the script without a GPU",
    )


def rounded(found: Any) -> Any:
    """The same with four digits of every float in it, for a line that people read."""
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return float(f"{found:.4g}") if isinstance(found, float) else found


class Output:
    """One JSON file, replaced in one step by every save."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.json"
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, document: Mapping[str, Any]) -> None:
        """Replace the file."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(document, indent=1, default=str) + "\n")
        os.replace(temporary, self.path)
