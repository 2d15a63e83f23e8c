"""Families of models decoded by SGLang's own ModelRunner, a fresh fork for every run.

SGLang is imported once, in multiprocessing's fork server; a server start would cost a minute each.
"""

from __future__ import annotations

import json
import multiprocessing
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from benchmarks.engines.sglang_decoded import Decoded
from benchmarks.engines.sglang_families import VOCAB, Family

_CHILD = "benchmarks.engines.sglang_child"
SECONDS = 600.0
# What such models bring along as code; SGLang reads their configs through it.
_REMOTE_CONFIG = """from transformers import PretrainedConfig


class Config(PretrainedConfig):
    model_type = {kind!r}
"""


class Outcome(NamedTuple):
    """What one run gave, or the error that ended it.

    started  whether SGLang had started by then
    """

    decoded: Decoded | None
    error: str
    started: bool
    log: Path


def run(family: Family, folder: Path, backend: str, flags: tuple[str, ...] = ()) -> Outcome:
    """Decode `family` on `backend` of SGLang, or by `transformers`; the model lies in `folder`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_CHILD])
    ours, theirs = context.Pipe(duplex=False)
    log = folder / f"{backend}.log"
    child = context.Process(target=_child, args=(family, folder, backend, flags, log, theirs))
    child.start()
    theirs.close()
    try:
        late = (None, f"no end in {SECONDS:.0f} s", False)
        decoded, error, started = ours.recv() if ours.poll(SECONDS) else late
    except EOFError:
        child.join()
        decoded, error, started = None, f"the process ended with {child.exitcode}", False
    finally:
        # It ends by itself; what SGLang started in it may keep it.
        child.join(5.0)
        child.kill()
        child.join()
        ours.close()
    return Outcome(decoded, error, started, log)


def _child(
    family: Family,
    folder: Path,
    backend: str,
    flags: tuple[str, ...],
    log: Path,
    send: Connection,
) -> None:
    from benchmarks.engines import sglang_child

    with sglang_child.output_to(log):
        started = False
        try:
            model = make_model(family, folder / "model")
            if backend == "transformers":
                decoded = sglang_child.decode_transformers(model, vocab=VOCAB)
            else:
                both = ("--attention-backend", backend, *family.flags, *flags)
                both += ("--trust-remote-code",) if family.remote else ()
                runner = sglang_child.start(model, both, fill=family.remote)
                started = True
                decoded = sglang_child.decode(runner, vocab=VOCAB)
            send.send((decoded, "", True))
        except BaseException as error:  # whatever stops SGLang is the result
            traceback.print_exc()
            send.send((None, f"{type(error).__name__}: {error}", started))


def make_model(family: Family, path: Path) -> Path:
    """The model's folder, written at first: weights too where transformers has the class."""
    if path.exists():
        return path
    from benchmarks.engines import sglang_child

    config = family.whole_config()
    if family.remote:
        path.mkdir(parents=True)
        shown = {"model_type": family.kind, "architectures": [family.architecture], **config}
        shown["auto_map"] = {"AutoConfig": "configuration.Config"}
        (path / "config.json").write_text(json.dumps(shown))
        (path / "configuration.py").write_text(_REMOTE_CONFIG.format(kind=family.kind))
        return path
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family.kind, **config), dtype=torch.float32
    )
    sglang_child.draw(model)
    model.save_pretrained(path)
    if family.architecture:
        shown = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(
            json.dumps({**shown, "architectures": [family.architecture]})
        )
    return path


def classify(reference: Outcome, pod: Outcome) -> str:
    """`equal`, `differs`, `refused` (by us, at start-up), `stock too` (both fail) or `fails`."""
    if pod.decoded is not None:
        if reference.decoded is None:
            return "no reference"
        return "equal" if pod.decoded.tokens == reference.decoded.tokens else "differs"
    if pod.error.startswith("UnsupportedFeatureError") and not pod.started:
        return "refused"
    return "stock too" if reference.decoded is None else "fails"
