"""What SGLang reads off an attention backend: ours has it, or there is a reason not to.

The installed SGLang is read each time. The other supported versions are in `surface.json`, which
`python -m support.sglang_surface 0.5.17=FOLDER/sglang ...` makes of unpacked wheels.
"""

from __future__ import annotations

import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.sglang_surface import Surface, read_surface

RECORDED = json.loads((Path(__file__).parent / "surface.json").read_text())
# Set by PodAttnBackend's methods, beside what its class body defines.
SET = {"token_to_kv_pool", "req_to_token_pool", "forward_metadata"}
REFUSED_SPECULATION = "speculative decoding, refused at start-up"
REFUSED_MLA = "latent attention, refused at start-up"
REFUSED_POOL = "linear attention, whose pool is refused at start-up"
REFUSED_GRAPHS = "CPU graphs, refused at start-up"
DEFAULT = "asked for with a default"
# Everything SGLang reads that our backend lacks on purpose. A name that is not here fails.
WITHOUT = {
    "can_run_prefill_cuda_graph": f"{DEFAULT}: every batch may replay a prefill graph",
    "vote_prefill_cuda_graph": f"{DEFAULT}: nothing to vote on",
    "extend_attention_block_m": f"{DEFAULT}: the tile that admission counts in, 64 else",
    "fa_impl_ver": f"{DEFAULT}: the version of FlashAttention",
    "prefill_backend": f"{DEFAULT}: a pair of backends has it, SGLang makes the pair",
    "primary": f"{DEFAULT}: two-batch overlap's wrapper",
    "children": "of two-batch overlap, asks for its wrapper first",
    "linear_extend_in_graph": "asks for HybridLinearAttnBackend first",
    "conv_state_metadata": REFUSED_POOL,
    "init_cpu_graph_state": REFUSED_GRAPHS,
    "init_forward_metadata_capture_cpu_graph": REFUSED_GRAPHS,
    "init_mha_chunk_metadata": REFUSED_MLA,
    "use_mha": f"{REFUSED_MLA}; {DEFAULT}",
    "enable_early_verify_metadata": REFUSED_SPECULATION,
    "update_mamba_state_after_mtp_verify": REFUSED_SPECULATION,
    "tail_forward_metadata": "of DeepSeek's encoder replay, asked for where a batch was folded",
}


def lacking(surface: Surface, own: set[str]) -> dict[str, str]:
    """Names that are read, and where; neither ours, nor SGLang's own base's, nor accounted for."""
    known = own | set(surface.base) | WITHOUT.keys()
    return {name: places[0] for name, places in surface.reads.items() if name not in known}


@pytest.fixture(scope="module")
def own(kit: SimpleNamespace) -> set[str]:
    """What PodAttnBackend brings itself, whatever SGLang's base class has."""
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    return set(vars(PodAttnBackend)) | SET


@pytest.fixture(scope="module")
def installed() -> Surface:
    spec = importlib.util.find_spec("sglang")
    assert spec is not None and spec.origin is not None
    return read_surface(Path(spec.origin).parent)


def test_backend_has_all_that_the_installed_sglang_reads(own: set[str], installed: Surface) -> None:
    assert lacking(installed, own) == {}


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_backend_has_all_that_a_supported_sglang_reads(own: set[str], name: str) -> None:
    recorded = RECORDED[name]
    reads = {attribute: [place] for attribute, place in recorded["reads"].items()}
    assert lacking(Surface(reads, recorded["base"]), own) == {}


def test_no_reason_is_given_for_what_nobody_reads(installed: Surface) -> None:
    read = set(installed.reads).union(*(recorded["reads"] for recorded in RECORDED.values()))
    assert WITHOUT.keys() - read == set()


def test_backend_sets_what_is_said_to_be_set(small: Any) -> None:
    backend, runner = small.backend, small.runner
    assert backend.token_to_kv_pool is runner.token_to_kv_pool
    assert backend.req_to_token_pool is runner.req_to_token_pool
    assert SET - vars(backend).keys() == {"forward_metadata"}
    backend.init_forward_metadata(small.forward_batch)
    assert SET <= vars(backend).keys()


def test_recorded_versions_are_the_others_that_pyproject_allows() -> None:
    assert {*RECORDED, version("sglang")} == {f"0.5.{n}" for n in range(15, 24)} | {"0.5.15.post1"}


def test_reads_are_found_through_names_getters_aliases_and_getattr(tmp_path: Path) -> None:
    files = {
        "srt/layers/attention/base_attn_backend.py": """
class AttentionBackend:
    flag: bool = False
    plain = None
    def __init__(self): self.set_in_init = 1
    def method(self): ...
""",
        "srt/models/a.py": """
def f(runner):
    runner.attn_backend.one
    backend = get_attn_backend()
    backend.two
    hasattr(backend, "three")
    def inner(): return backend.four
    getattr(getattr(runner, "attn_backend", None), "five", 0)
    get_attn_backend().six.not_this
    backend.not_a_read = 1
    other.not_this_either
""",
        "srt/models/deepseek_x.py": "attn_backend.of_another_world\n",
        "srt/layers/attention/hybrid_attn_backend.py": "self.prefill_backend.seven\n",
        "srt/layers/attention/other_backend.py": "attn_backend.its_own_business\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    surface = read_surface(tmp_path)
    assert set(surface.reads) == {"one", "two", "three", "four", "five", "six", "seven"}
    assert surface.reads["two"] == ["srt/models/a.py:5"]
    assert surface.base == ["__init__", "flag", "method", "plain", "set_in_init"]
