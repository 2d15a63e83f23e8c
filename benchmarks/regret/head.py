"""The command line that comparisons on recorded truth share, `python -m benchmarks.regret.kinds`.

FILE is what `python -m benchmarks.gpu truth` left; results are filed of the one that lies with the
source only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import optuna

from benchmarks import _results
from benchmarks.regret.recorded import Recorded, load

TRUTH = Path(__file__).resolve().parents[2] / "tests" / "tuner" / "data" / "gpu_truth.json"


class Head:
    """Options of one comparison, and where its results go.

    name   of the results
    text   its docstring: the first line describes the command
    truth  what is read unless another file is named

    parser  takes more options, before `parse`
    files   whether results are filed, after it
    """

    def __init__(self, name: str, text: str | None, truth: Path = TRUTH) -> None:
        self.parser = argparse.ArgumentParser(prog=name, description=(text or "").split("\n")[0])
        self.parser.add_argument("truth", type=Path, nargs="?", default=truth)
        self._name, self._truth, self.files = name, truth, False

    def parse(self) -> tuple[argparse.Namespace, dict[str, Any], list[Recorded]]:
        """Options, what the file tells of its machine, and its buckets; exits without a file."""
        options = self.parser.parse_args()
        if not options.truth.exists():
            self.parser.error(
                f"{options.truth} is missing: `python -m benchmarks.gpu truth` makes one"
            )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.files = options.truth == self._truth
        return options, *load(options.truth)

    def file(self, document: dict[str, Any]) -> None:
        """Write results/<name>.json, of the usual file."""
        if self.files:
            _results.write(self._name, document)
