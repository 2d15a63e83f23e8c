"""vLLM's public grammar of attention batches, and the batches that it publishes in it.

Parts joined by `_`, each `<count>q<new tokens>s<keys>`: without a count one request, without `s` a
whole prompt; `k` multiplies by 1024. `2q2k_8q1s1k` is two prompts of 2,048 tokens beside eight
decodes at 1,024 keys. Published are, in vLLM's attention benchmarks, the configs of standard
attention and of its production mix, the latter with the heads of each of its four models.
"""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

from pod_integrate.model.batches import Lengths, parts_of
from pod_integrate.terms.keys import Geometry, in_full

_PART = re.compile(r"([1-9]\d{0,3})?q([1-9]\d{0,9}k?)(?:s([1-9]\d{0,9}k?))?")
_STANDARD = (
    *("q512", "q2k", "q4k", "q8k"),
    *("8q1s1k", "16q1s2k", "32q1s1k", "64q1s4k"),
    *("2q2k_8q1s1k", "4q1k_16q1s2k", "2q4k_32q1s1k"),
    *("q1ks2k", "2q1ks4k"),
)
_MIX = (
    *("q2k", "q1s512", "q1s4k", "32q1s4k", "2q1k_16q1s2k", "16q4s4k", "4q512s8k"),
    *("q257_7q1s1057_3q4s2051_2q129s4093", "q769_3q1s6143_2q8s3073_q257s8191"),
)
# Query heads, KV heads, head dim: Llama 3.1 8B first, whose head dim most libraries are made for;
# a selector's with one KV head, Gemma 2 9B, Phi-3 Mini.
_HEADS = (32, 8, 128)
_MIX_HEADS = (_HEADS, (16, 1, 64), (16, 8, 256), (32, 32, 96))
_STANDARD_PAGE, _MIX_PAGE = 16, 32
# Of a batch that the emulated SM attends in a second.
_TINY, _TINY_ROWS, _TINY_DIM, _TINY_PAGE = 256, 24, 64, 16
SETS = ("standard", "production mix")


class GrammarSpec(NamedTuple):
    """One batch of the grammar; `requests` as (new tokens, keys), those that prefill first."""

    name: str
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    page_size: int
    requests: tuple[tuple[int, int], ...]

    @property
    def heads(self) -> str:
        """Query heads, KV heads and head dim in text."""
        return f"{self.num_q_heads}/{self.num_kv_heads}/{self.head_dim}"

    @property
    def geometry(self) -> Geometry:
        """Heads of one GPU, bf16."""
        heads = (self.num_q_heads, self.num_kv_heads, self.head_dim)
        return Geometry.uniform(heads, "bf16", page_size=self.page_size)

    @property
    def lengths(self) -> Lengths:
        """Of the requests."""
        q_lens, kv_lens = zip(*self.requests, strict=True)
        return Lengths.of(q_lens, kv_lens)


def parse(text: str) -> Lengths:
    """Of the requests, in the order of the text; raises ShapeError for what is no such batch."""
    q_lens: list[int] = []
    kv_lens: list[int] = []
    expected = "parts like q2k, 8q1s1k or 3q4s2051, joined by _"
    for count, new, keys in parts_of(text, "_", _PART, expected):
        q_lens += [in_full(new)] * int(count or 1)
        kv_lens += [in_full(keys or new)] * int(count or 1)
    return Lengths.of(q_lens, kv_lens)


def spec_of(
    text: str, heads: tuple[int, int, int] = _HEADS, page_size: int = _STANDARD_PAGE
) -> GrammarSpec:
    """The batch that a text of the grammar names; `heads` as (query heads, KV heads, head dim)."""
    # Stable: within each op requests keep their order.
    requests = sorted(zip(*parse(text), strict=True), key=lambda request: request[0] == 1)
    name = f"{text}, {heads[0]}/{heads[1]}/{heads[2]}, page {page_size}"
    return GrammarSpec(name, *heads, page_size, tuple(requests))


def published(wanted: str) -> list[GrammarSpec]:
    """The batches of one of SETS; of the mix those of a model's heads stand together."""
    if wanted == "standard":
        return [spec_of(text) for text in _STANDARD]
    return [spec_of(text, heads, _MIX_PAGE) for heads, text in itertools.product(_MIX_HEADS, _MIX)]


def tiny(spec: GrammarSpec) -> GrammarSpec:
    """A batch of the same kinds of requests that the emulated SM attends in a second."""
    requests = []
    for q_len, kv_len in dict.fromkeys(spec.requests):
        new = min(q_len, max(_TINY_ROWS, q_len // _TINY))
        requests.append((new, max(new, kv_len // _TINY)))
    heads = max(2, spec.num_q_heads // 8), max(1, spec.num_kv_heads // 8), _TINY_DIM
    return GrammarSpec(spec.name, *heads, _TINY_PAGE, tuple(requests))
