"""Fuzzes every endpoint of the tuner, in this process over a database of its own.

python benchmarks/tuner_fuzz.py [--requests N] [--seed S]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks import fuzz
from benchmarks._results import record_headline, write
from tuner.host.opening import open_tuner
from tuner.host.thread import TunerThread
from tuner.http.api import create_app
from tuner.http.docs import EXAMPLE
from tuner.settings import TunerSettings

COMMAND = "pod-attn bench tuner-fuzz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    # A refused request is no news here.
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        settings = TunerSettings(data_dir=Path(folder), database_url="", workers=0)
        core = TunerThread(lambda: open_tuner(settings))
        began = time.monotonic()
        counts, failures = asyncio.run(
            fuzz.run(create_app(core), EXAMPLE, requests=chosen.requests, seed=chosen.seed)
        )
        seconds = time.monotonic() - began
        core.tuner.archive.rotate(now=core.tuner.clock(), force=True)
        core.close()
    path = write(
        "tuner_fuzz",
        {
            "requests": sum(counts.values()),
            "seed": chosen.seed,
            "seconds": round(seconds, 1),
            "answers": {str(status): count for status, count in sorted(counts.items())},
            "failures": fuzz.summary(failures),
            "first_failure": msgspec.to_builtins(failures[0]) if failures else None,
        },
    )
    record_headline("tuner.fuzz_requests", sum(counts.values()), "", COMMAND)
    record_headline("tuner.fuzz_5xx", len(failures), "", COMMAND)
    print(path.read_text())


if __name__ == "__main__":
    main()
