"""Batches that are measured: the published cases, and the sweep of the POD-Attention paper."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import torch

from benchmarks.gpu.common.machines import Backend
from pod_integrate.devices.cuda import limits
from pod_integrate.errors import PodAttentionError
from pod_integrate.measure.batches import Case
from pod_integrate.model.batches import Lengths
from pod_integrate.model.floors import CASES, CaseSpec
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.geometry import TORCH_DTYPES
from pod_integrate.terms.keys import Geometry

Part = Literal["all", "prefill", "decode"]
_TINY = 256
_TINY_DIM = 64
# With a group of two, more rows than a decode tile holds.
_TINY_CHUNK = 24


class BenchmarkCaseError(PodAttentionError):
    """A case was asked for that does not exist."""


class Spec(Protocol):
    """A batch that can be made: its requests that prefill first, then those of one token."""

    @property
    def name(self) -> str: ...
    @property
    def num_q_heads(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def page_size(self) -> int: ...
    @property
    def geometry(self) -> Geometry: ...
    @property
    def lengths(self) -> Lengths: ...


def requests_of(spec: Spec, part: Part) -> slice:
    """The requests of a part."""
    first = sum(q_len != 1 for q_len in spec.lengths.q_lens)
    return {"all": slice(None), "prefill": slice(first), "decode": slice(first, None)}[part]


def rows_of(spec: Spec, part: Part) -> slice:
    """The rows of q that a part has."""
    first = sum(spec.lengths.q_lens[requests_of(spec, "prefill")])
    return {"all": slice(None), "prefill": slice(first), "decode": slice(first, None)}[part]


def tiny(spec: CaseSpec) -> CaseSpec:
    """A batch of the same kind that the emulated SM attends in a second."""
    chunk = max(_TINY_CHUNK, spec.chunk // _TINY)
    return spec._replace(
        chunk=chunk,
        context=max(chunk, spec.context // _TINY),
        decodes=max(1, spec.decodes // 16),
        decode_context=max(1, spec.decode_context // _TINY),
        head_dim=_TINY_DIM,
        num_q_heads=max(2, spec.num_q_heads // 8),
        num_kv_heads=max(1, spec.num_kv_heads // 8),
    )


class _Heads(NamedTuple):
    """One model of the paper's sweep on one of its GPUs."""

    name: str
    q: int
    kv: int
    weights_gib: int


_SWEEP_HEADS = (
    _Heads("Llama-3-8B tp1", 32, 8, 16),
    _Heads("Llama-3-8B tp2", 16, 4, 8),
    _Heads("Llama-3-8B tp4", 8, 2, 4),
    _Heads("Llama-3-8B tp8", 4, 1, 2),
    _Heads("Yi-6B tp1", 32, 4, 12),
    _Heads("Yi-6B tp2", 16, 2, 6),
    _Heads("Yi-6B tp4", 8, 1, 3),
)
_SWEEP_CHUNKS = (512, 1024, 2048)
_SWEEP_CONTEXTS = (4096, 8192, 12288, 16384, 20480)
# The decodes fill this share of what fits beside the weights on 90 % of 80 GiB, in 32 layers.
_SWEEP_FILLS = (0.9, 0.95, 1.0)
_LAYERS, _GPU_GIB, _USABLE = 32, 80, 0.9


def paper_grid() -> Iterator[CaseSpec]:
    """The paper's sweep: heads x chunk x context x each chunk of the prompt x decodes; 4,410."""
    for heads in _SWEEP_HEADS:
        token = 2 * 2 * 128 * heads.kv * _LAYERS
        tokens = _USABLE * ((_GPU_GIB - heads.weights_gib) << 30) / token
        for chunk, context, fill in itertools.product(_SWEEP_CHUNKS, _SWEEP_CONTEXTS, _SWEEP_FILLS):
            decodes = int(int(tokens // context) * fill)
            for end in range(chunk, context + 1, chunk):
                name = f"{heads.name} {chunk}@{end} + {decodes}@{context}"
                yield CaseSpec(name, heads.q, heads.kv, chunk, end, decodes, context)


def sample(seed: int) -> list[CaseSpec]:
    """All of paper_grid() in random order: as many as there is time for are a fair sample."""
    every = list(paper_grid())
    random.Random(seed).shuffle(every)
    return every


def sized(machine: Backend, spec: CaseSpec) -> CaseSpec:
    """The case itself on a GPU, a tiny one of its kind for the emulated SM."""
    return spec if not machine.tiny else tiny(spec)


def cases(machine: Backend) -> list[CaseSpec]:
    """The twelve published cases."""
    return [sized(machine, spec) for spec in CASES]


def find(machine: Backend, wanted: str) -> CaseSpec:
    """The case with this number (from 1) or name, or whose name is the first to contain it.

    Published cases come first, then paper_grid(). Raises BenchmarkCaseError when there is none.
    """
    every = [*CASES, *paper_grid()]
    if wanted.isdecimal():
        number = int(wanted)
        exact, part = list(CASES[max(0, number - 1) : number]), []
    else:
        exact = [spec for spec in every if spec.name.lower() == wanted.lower()]
        part = [spec for spec in every if wanted.lower() in spec.name.lower()]
    if not exact + part:
        names = ", ".join(f"{i} {spec.name!r}" for i, spec in enumerate(CASES, 1))
        raise BenchmarkCaseError(
            f"no case is called {wanted!r}; give a number or a part of a name. Published are "
            f"{names}; cases of the paper's sweep look like {every[-1].name!r}"
        )
    return sized(machine, (exact + part)[0])


def make_case(spec: Spec, device: torch.device, part: Part = "all") -> Case:
    """Unit-normal inputs made on the device, pages in random order; `part` of the requests."""
    generator, asked = torch.Generator(device).manual_seed(0), requests_of(spec, part)
    lengths, size = Lengths.of(*(side[asked] for side in spec.lengths)), spec.page_size
    pages = [-(-kv // size) for kv in lengths.kv_lens]
    total = sum(pages)
    order = torch.randperm(total, device=device, generator=generator).to(torch.int32)
    starts = [0, *itertools.accumulate(pages)][:-1]
    batch = HybridBatch.build(*lengths, page_indices=order, page_starts=starts, page_size=size)
    dtype = TORCH_DTYPES[spec.geometry.dtype]

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=device, generator=generator)

    kv = (total, size, spec.num_kv_heads, spec.head_dim)
    q = normal(batch.num_tokens, spec.num_q_heads, spec.head_dim)
    return Case(q, normal(*kv), normal(*kv), batch)


def part_of(case: Case, spec: Spec, part: Part) -> Case:
    """`part` of a case's requests with the values that they have there."""
    requests = requests_of(spec, part)
    batch = HybridBatch.build(
        *(side[requests] for side in spec.lengths),
        page_indices=case.batch.page_indices,
        page_starts=case.batch.page_starts[requests],
        page_size=spec.page_size,
    )
    return case._replace(q=case.q[rows_of(spec, part)], batch=batch)


def default_of(machine: Backend, spec: Spec) -> PodConfig:
    """The default config of the machine for a case."""
    return limits.default_tiles(machine.arch, spec.head_dim)
