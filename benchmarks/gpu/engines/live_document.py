"""The live part's document, saved whenever something becomes known."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.gpu.engines.live_models import MODELS
from benchmarks.gpu.engines.part import Part

_LOAD = ("model", "layers", "running", "prompt", "answer", "share", "learn", "rounds", "device")


class Live(Part):
    """The document under way, and what its stages share."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        model = MODELS[options.model]
        load = {name: getattr(options, name) for name in _LOAD}
        load |= {"heads": model.heads, "layers": options.layers or model.layers}
        super().__init__(options, folder, f"live_{options.model}", load)
        self.say("begun")

    @property
    def folders(self) -> tuple[Path, Path]:
        """One for files that nobody keeps, one for logs."""
        return self.folder, self.options.out
