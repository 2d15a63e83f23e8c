"""What the engines' parts have in common: a document, a clock, and stages that fail alone."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.common import machine
from benchmarks.gpu.common.output import Output


class Part:
    """The document under way, and what its stages share.

    folder    of files that nobody keeps
    document  machine, load, failed (name: why), stages (name: seconds) where there are any, and
              what a part adds
    """

    def __init__(
        self, options: argparse.Namespace, folder: Path, name: str, load: dict[str, Any]
    ) -> None:
        self.options, self.folder = options, folder
        self._name, self._began = name, time.monotonic()
        self._output = Output(options.out, name)
        self.document: dict[str, Any] = {
            "machine": machine.report(), "load": load, "failed": {},
        }  # fmt: skip

    @property
    def passed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def left(self) -> float:
        """Seconds that one step may still take, of parts with --each and --seconds."""
        return max(0.0, min(float(self.options.each), float(self.options.seconds) - self.passed))

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"{self.passed:5.0f} s  {text}", flush=True)

    def save(self, **news: Any) -> None:
        """File what has become known."""
        self.document |= news
        self._output.save(self.document)

    def end(self, *keys: str) -> None:
        """Print these of the document and what failed; exits with an error where anything did."""
        for key in (*keys, "failed"):
            print(f"{key}: {json.dumps(self.document.get(key))}")
        if self.document["failed"]:
            sys.exit(f"{self._name}: failed are {', '.join(self.document['failed'])}")

    def stage(self, name: str, work: Callable[[], None]) -> None:
        """Do it; where an engine fails, a line in `failed` says so."""
        began = time.monotonic()
        try:
            work()
        except (RuntimeError, OSError) as error:
            self.document["failed"][name] = f"{type(error).__name__}: {error}"
            self.say(f"{name} FAILED: {error}")
        finally:
            self.document.setdefault("stages", {})[name] = round(time.monotonic() - began, 1)
            self.save()
