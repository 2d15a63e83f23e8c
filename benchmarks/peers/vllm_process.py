"""Our end of the process that runs vLLM's CPU attention in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_CHILD = Path(__file__).resolve().parent / "vllm_child.py"


class Peer:
    """vLLM's side: a process of another environment that answers a line with a line.

    said  what it told about itself. RuntimeError when it ends or says no JSON
    """

    def __init__(self, python: Path, threads: int) -> None:
        # Threads that spin while they wait take the cores from whose turn it is.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [str(python), str(_CHILD), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.said = self._read()

    def ask(self, told: dict[str, Any]) -> dict[str, Any]:
        """Its answer to a case."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # its end is closed, or ours since it ended
            raise RuntimeError("vLLM's process has ended") from None
        return self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stop()

    def _stop(self) -> int:
        self._process.terminate()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                # A question that nobody read is lost; the process is known to have ended.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        return self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._stop()
            raise RuntimeError(f"vLLM's process ended with status {status}")
        found: dict[str, Any] = json.loads(line)
        return found
