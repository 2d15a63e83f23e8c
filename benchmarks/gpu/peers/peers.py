"""Other libraries' attention on the same batch; each is built, tried and checked on its own.

A peer that is missing, fails to compile, refuses the batch or answers something else is recorded
with its own words and left out; nothing here stops a run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.peers import fa3, flashinfer, torch_sdpa, xqa
from benchmarks.gpu.speed.cases import Part, Spec, default_of, make_case, rows_of, tiny
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.batches import Case
from pod_integrate.model.floors import CaseSpec

_TINY = CaseSpec("tiny", 16, 4, 128, 512, 4, 512)
_TEXT = 800
# Of each JIT build; several builds run at once, and one compiler takes up to 3 GB.
_COMPILERS = "12"


class Peer(NamedTuple):
    """`make` plans a batch and returns the call to time; it answers the rows of `part`.

    whole  takes chunks that are whole prompts only
    """

    name: str
    part: Part
    make: Callable[[Case, CaseSpec], Callable[[], torch.Tensor]]
    whole: bool = False


PEERS = (
    Peer("flashinfer prefill fa2", "prefill", flashinfer.prefill("fa2", "prefill")),
    Peer("flashinfer prefill fa3", "prefill", flashinfer.prefill("fa3", "prefill")),
    Peer("flashinfer decode", "decode", flashinfer.decode(tensor_cores=True)),
    Peer("flashinfer decode, no tensor cores", "decode", flashinfer.decode(False)),
    Peer("flashinfer prefill fa2, all rows", "all", flashinfer.prefill("fa2", "all")),
    Peer("flashinfer prefill fa3, all rows", "all", flashinfer.prefill("fa3", "all")),
    Peer("flashinfer fa2 then decode", "all", flashinfer.serial("fa2")),
    Peer("flashinfer fa3 then decode", "all", flashinfer.serial("fa3")),
    Peer("flashinfer BatchPOD", "all", flashinfer.batch_pod),
    Peer("flashinfer BatchAttention", "all", flashinfer.batch_attention),
    Peer("flashinfer xqa decode", "decode", xqa.decode),
    Peer("sgl_kernel fa3 prefill", "prefill", fa3.attention("prefill")),
    Peer("sgl_kernel fa3 decode", "decode", fa3.attention("decode")),
    Peer("sgl_kernel fa3, all rows", "all", fa3.attention("all")),
    Peer("torch flash prefill", "prefill", torch_sdpa.prefill("FLASH_ATTENTION")),
    Peer("torch cudnn prefill", "prefill", torch_sdpa.prefill("CUDNN_ATTENTION"), whole=True),
    Peer("torch flash decode", "decode", torch_sdpa.decode("FLASH_ATTENTION")),
    Peer("torch cudnn decode", "decode", torch_sdpa.decode("CUDNN_ATTENTION")),
)


def difference(got: torch.Tensor, ours: torch.Tensor, part: Part, spec: Spec) -> float:
    """Largest difference to our rows; infinite for another shape."""
    want = ours[rows_of(spec, part)]
    if got.shape != want.shape:
        return float("inf")
    return float((got.float() - want.float()).abs().max())


def usable(folder: Path) -> list[Peer]:
    """Those that `peers` has tried with success; all of torch's where it did not run."""
    saved = folder / "peers.json"
    if not saved.exists():
        return [peer for peer in PEERS if peer.name.startswith("torch")]
    tried = json.loads(saved.read_text())["peers"]
    return [peer for peer in PEERS if tried.get(peer.name, {}).get("outcome") == "ok"]


def try_one(machine: Backend, peer: Peer) -> float:
    """Build and run a peer on a tiny batch; the difference to ours, or AssertionError."""
    spec = _TINY if not machine.tiny else tiny(_TINY)
    if peer.whole:
        spec = spec._replace(context=spec.chunk)
    case = make_case(spec, machine.device)
    ours = machine.attend(case, default_of(machine, spec)).out
    found = difference(peer.make(case, spec)(), ours, peer.part, spec)
    assert found < BF16_TOLERANCE, f"{peer.name} differs from ours by {found}"
    return found


def run(folder: Path, name: str, seconds: float) -> dict[str, Any]:
    """Try all peers at once, a process each: JIT compilers of some take minutes."""
    output = Output(folder, "peers")
    document: dict[str, Any] = {"peers": {}}
    began = time.monotonic()
    running = {peer.name: _start(peer, folder, name) for peer in PEERS}
    try:
        for peer_name, process in running.items():
            left = max(0.1, began + seconds - time.monotonic())
            outcome, text = _finish(process, left)
            document["peers"][peer_name] = {"outcome": outcome, "said": text[-_TEXT:]}
            document["seconds"] = round(time.monotonic() - began, 1)
            output.save(document)
            print(f"{peer_name:36s} {outcome}: {text.strip()[-160:]}", flush=True)
    finally:
        for process in running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return document


def _start(peer: Peer, folder: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "peers", "--backend", name]
    return subprocess.Popen(
        [*command, "--out", str(folder), "--one", peer.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={"MAX_JOBS": _COMPILERS, **os.environ},
    )


def _finish(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    try:
        text, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        return f"stopped after {seconds:.0f} s", text
    return ("ok" if process.returncode == 0 else f"exit code {process.returncode}"), text


def main(arguments: list[str] | None = None) -> None:
    """Try every peer and save peers.json, which `numbers` reads."""
    parser = argparse.ArgumentParser(prog="peers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--one", help="this one only, in this process")
    parser.add_argument("--seconds", type=float, default=400.0)
    add_output(parser)
    options = parser.parse_args(arguments)
    if options.one:
        peer = next(peer for peer in PEERS if peer.name == options.one)
        print(f"difference {try_one(backend(options.backend), peer):.3g}")
        return
    run(options.out, options.backend, options.seconds)
