"""The live part's document, saved whenever something becomes known."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.common import machine
from benchmarks.gpu.common.output import Output
from benchmarks.gpu.engines.live_models import MODELS

_LOAD = ("model", "layers", "running", "prompt", "answer", "share", "learn", "rounds", "device")


class Live:
    """The document under way, and what its stages share.

    document  saved by `save`, whole
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self._began = time.monotonic()
        self._output = Output(options.out, f"live_{options.model}")
        model = MODELS[options.model]
        self.document: dict[str, Any] = {
            "machine": machine.report(),
            "load": {name: getattr(options, name) for name in _LOAD}
            | {"heads": model.heads, "layers": options.layers or model.layers},
            "stages": {}, "failed": {},
        }  # fmt: skip
        self.say("begun")

    @property
    def folders(self) -> tuple[Path, Path]:
        """One for files that nobody keeps, one for logs."""
        return self.folder, self.options.out

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"{time.monotonic() - self._began:5.0f} s  {text}", flush=True)

    def save(self, **news: Any) -> None:
        """File what has become known."""
        self.document |= news
        self._output.save(self.document)

    def stage(self, name: str, work: Callable[[], None]) -> None:
        """Do it; where an engine fails, a line in `failed` says so."""
        began = time.monotonic()
        try:
            work()
        except (RuntimeError, OSError) as error:
            self.document["failed"][name] = f"{type(error).__name__}: {error}"
            self.say(f"{name} FAILED: {error}")
        finally:
            self.document["stages"][name] = round(time.monotonic() - began, 1)
            self.save()
