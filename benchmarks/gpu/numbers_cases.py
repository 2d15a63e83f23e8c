"""Batches that are measured: the published cases, and a sample of the paper's sweep."""

from __future__ import annotations

from typing import NamedTuple

import torch

from pod_integrate import gpu
from pod_integrate.batch import HybridBatch
from pod_integrate.config import PodConfig
from pod_integrate.keys import Geometry
from pod_integrate.model.batches import Lengths
from pod_integrate.model.floors import CASES
from pod_integrate.testing.batches import TORCH_DTYPES, Case

from .backends import Backend, Cuda

_TINY = 256
_TINY_DIM = 64
# With a group of two, more rows than a decode tile holds.
_TINY_CHUNK = 24


class CaseSpec(NamedTuple):
    """One prefill chunk at the end of `context`, and `decodes` requests."""

    name: str
    num_q_heads: int
    num_kv_heads: int
    chunk: int
    context: int
    decodes: int
    decode_context: int
    head_dim: int = 128
    page_size: int = 16

    @property
    def geometry(self) -> Geometry:
        """bf16 throughout."""
        return Geometry(
            num_q_heads=self.num_q_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            dtype="bf16",
            kv_dtype="bf16",
            page_size=self.page_size,
        )

    @property
    def lengths(self) -> Lengths:
        """The chunk first, then the decodes."""
        contexts = [self.context, *[self.decode_context] * self.decodes]
        return Lengths.of([self.chunk, *[1] * self.decodes], contexts)

    def tiny(self) -> CaseSpec:
        """A batch of the same kind that the emulated SM attends in a second."""
        chunk = max(_TINY_CHUNK, self.chunk // _TINY)
        return self._replace(
            chunk=chunk,
            context=max(chunk, self.context // _TINY),
            decodes=max(1, self.decodes // 16),
            decode_context=max(1, self.decode_context // _TINY),
            head_dim=_TINY_DIM,
            num_q_heads=max(2, self.num_q_heads // 8),
            num_kv_heads=max(1, self.num_kv_heads // 8),
        )


# A sample of the paper's sweep: heads x chunk x context, the last chunk of each prompt, decodes
# that fill 95 % of the KV memory (facts of the public artifact).
_GRID = (
    CaseSpec("grid l3-tp1 512@4K", 32, 8, 512, 4096, 109, 4096),
    CaseSpec("grid l3-tp1 1K@8K", 32, 8, 1024, 8192, 54, 8192),
    CaseSpec("grid l3-tp1 2K@16K", 32, 8, 2048, 16384, 26, 16384),
    CaseSpec("grid l3-tp1 1K@20K", 32, 8, 1024, 20480, 21, 20480),
    CaseSpec("grid l3-tp2 512@8K", 16, 4, 512, 8192, 122, 8192),
    CaseSpec("grid l3-tp2 1K@12K", 16, 4, 1024, 12288, 81, 12288),
    CaseSpec("grid l3-tp2 2K@20K", 16, 4, 2048, 20480, 48, 20480),
    CaseSpec("grid yi-tp1 512@12K", 32, 4, 512, 12288, 76, 12288),
    CaseSpec("grid yi-tp1 1K@4K", 32, 4, 1024, 4096, 231, 4096),
    CaseSpec("grid yi-tp1 2K@16K", 32, 4, 2048, 16384, 57, 16384),
)


def published() -> list[CaseSpec]:
    """The twelve published cases."""
    return [CaseSpec(*case) for case in CASES]


def cases(machine: Backend, *, grid: bool = False, only: str = "") -> list[CaseSpec]:
    """The twelve published cases (and the grid's sample) whose name contains `only`."""
    wanted = published()
    wanted += _GRID if grid else ()
    wanted = [spec for spec in wanted if only.lower() in spec.name.lower()]
    return wanted if isinstance(machine, Cuda) else [spec.tiny() for spec in wanted]


def make_case(spec: CaseSpec, device: torch.device, seed: int = 0) -> Case:
    """Unit-normal inputs made on the device, pages in random order."""
    generator = torch.Generator(device).manual_seed(seed)
    lengths, size = spec.lengths, spec.page_size
    pages = [-(-kv // size) for kv in lengths.kv_lens]
    total = sum(pages)
    order = torch.randperm(total, device=device, generator=generator).to(torch.int32)
    starts = [sum(pages[:b]) for b in range(len(pages))]
    batch = HybridBatch.build(*lengths, page_indices=order, page_starts=starts, page_size=size)
    dtype = TORCH_DTYPES[spec.geometry.dtype]

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=device, generator=generator)

    kv = (total, size, spec.num_kv_heads, spec.head_dim)
    q = normal(batch.num_tokens, spec.num_q_heads, spec.head_dim)
    return Case(q, normal(*kv), normal(*kv), batch)


def default_of(machine: Backend, spec: CaseSpec) -> PodConfig:
    """The default config of the machine for a case."""
    return gpu.default_tiles(machine.arch, spec.head_dim)
