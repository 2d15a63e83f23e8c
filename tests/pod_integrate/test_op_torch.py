"""The op inside torch: compile, opcheck, threads, fork, gradients."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

from pod_integrate.errors import UnsupportedFeatureError
from pod_integrate.measure.accuracy import assert_matches_reference, attend_and_check
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig, TileConfig, flatten_config
from pod_integrate.terms.keys import Geometry

GEOMETRY = Geometry.uniform((4, 2, 32), "fp32")
CONFIG = PodConfig(
    prefill=TileConfig(q_rows=32, kv_rows=32), decode=TileConfig(q_rows=16, kv_rows=16)
)
# torch's tracer uses its own deprecated names.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch.*", "ignore::FutureWarning:torch.*"
)


@pytest.fixture
def case() -> Case:
    return make_batch([20, 1, 1], [50, 33, 9], geometry=GEOMETRY, seed=0)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("config", [None, CONFIG], ids=["default", "explicit"])
def test_compiles_as_one_graph(case: Case, backend: str, config: PodConfig | None) -> None:
    def step(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, batch: HybridBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = hybrid_attention(q * 2, k, v, batch, config=config, window_left=30)
        return out + 1, lse

    torch.compiler.reset()
    with torch.inference_mode():
        out, lse = torch.compile(step, backend=backend, fullgraph=True)(*case)
        want, want_lse = step(*case)
    assert torch.equal(out, want) and torch.equal(lse, want_lse)


def test_opcheck_finds_nothing(case: Case) -> None:
    q, k_cache, v_cache, batch = case
    indices = (batch.q_indptr, batch.kv_lens, batch.page_indices, batch.page_starts)
    for config in ([], flatten_config(CONFIG)):
        for sinks in (None, torch.zeros(4)):
            outputs = (torch.zeros_like(q), torch.zeros(q.shape[:2]))
            torch.library.opcheck(
                torch.ops.pod.hybrid_attention.default,
                (
                    q,
                    k_cache,
                    v_cache,
                    *indices,
                    16,
                    0.2,
                    -1,
                    0.0,
                    1.0,
                    1.0,
                    sinks,
                    config,
                    *outputs,
                ),
            )


def test_tensors_without_memory_never_reach_the_kernel() -> None:
    # In a process of its own: the kernel would read at address 0.
    program = """
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode
        from pod_integrate.measure.batches import make_batch
        from pod_integrate.op import hybrid_attention
        from pod_integrate.terms.keys import Geometry
        geometry = Geometry.uniform((4, 2, 32), "fp32")
        q, k, v, batch = make_batch([20, 1], [50, 90], geometry=geometry, seed=0)
        with FakeTensorMode() as mode:
            pass
        fake = mode.from_tensor(q), mode.from_tensor(k), mode.from_tensor(v)
        with torch.no_grad():
            for arguments, out in (((q, *fake[1:]), None), ((q, k, v), fake[0])):
                try:
                    hybrid_attention(*arguments, batch, out=out)
                except Exception as error:
                    print(type(error).__name__, error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FakeTensor") >= 2, done.stdout


def test_gradient_is_refused_instead_of_lost(case: Case) -> None:
    q = case.q.requires_grad_()
    with pytest.raises(UnsupportedFeatureError, match="no gradient"):
        hybrid_attention(q, *case[1:])
    with torch.no_grad():
        hybrid_attention(q, *case[1:])


def test_two_threads_calling_at_once_both_get_their_answers() -> None:
    cases = [make_batch([30 + i, 1], [200, 90 + i], geometry=GEOMETRY, seed=i) for i in range(4)]
    failures: list[BaseException] = []

    def call(case: Case) -> None:
        try:
            for _ in range(10):
                attend_and_check(case)
        except BaseException as error:  # a thread's error must reach the test
            failures.append(error)

    threads = [threading.Thread(target=call, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_thread_count_may_change_between_calls(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for threads in (3, 1, 5, 2):
        monkeypatch.setenv("POD_ATTN_THREADS", str(threads))
        attend_and_check(case)


def test_forked_child_computes_after_its_parent_did() -> None:
    # In a process of its own: pytest may hold threads that must not be forked.
    program = """
        import os, torch
        from pod_integrate.terms.keys import Geometry
        from pod_integrate.op import hybrid_attention
        from pod_integrate.measure.batches import make_batch
        geometry = Geometry.uniform((4, 2, 32), "fp32")
        case = make_batch([200, 1, 1], [500, 900, 900], geometry=geometry, seed=0)
        want = hybrid_attention(*case)
        child = os.fork()
        if child == 0:
            got = hybrid_attention(*case)
            os._exit(0 if torch.equal(got.out, want.out) else 3)
        _, status = os.waitpid(child, 0)
        again = hybrid_attention(*case)
        assert torch.equal(again.out, want.out)
        raise SystemExit(os.waitstatus_to_exitcode(status))
    """
    environment = os.environ | {"POD_ATTN_THREADS": "4"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_answers_hold_while_torch_uses_its_own_threads(case: Case) -> None:
    stop = threading.Event()

    def multiply() -> None:
        x = torch.randn(200, 200)
        while not stop.is_set():
            x = torch.tanh(x @ x)

    thread = threading.Thread(target=multiply)
    thread.start()
    try:
        for _ in range(20):
            assert_matches_reference(case, hybrid_attention(*case))
    finally:
        stop.set()
        thread.join()
