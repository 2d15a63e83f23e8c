"""Variants are found without a compiler, compiled once, and reported on."""

from __future__ import annotations

import importlib.util
import shutil
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from pod_integrate.builds import cache, native, nvcc
from pod_integrate.builds.report import BuildReport
from pod_integrate.devices.cuda import kernel_library
from pod_integrate.devices.cuda.limits import ARCHITECTURES
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.errors import BuildError, ConfigInfeasibleError

VARIANT = Variant.parse("bf16-d64-p64x32s1w4-d16x64s1w4-c2-v1")
HOPPER = ARCHITECTURES["sm_90a"]
TINY = """
#include "tiny.h"
__global__ void reverse(float* x) {
  __shared__ float row[POD_HEAD_DIM];
  row[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = row[POD_HEAD_DIM - 1 - threadIdx.x];
}
extern "C" __attribute__((visibility("default"))) int pod_launch(float* x) {
  reverse<<<1, POD_HEAD_DIM>>>(x);
  return cudaGetLastError();
}
extern "C" __attribute__((visibility("default"))) const char* pod_error() { return "no device"; }
extern "C" __attribute__((visibility("default"))) int pod_info(int, int, void*) { return 1; }
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source tree of one tiny variant and a cache of its own."""
    root = tmp_path / "kernels" / "cuda"
    (root / "csrc").mkdir(parents=True)
    (root / "include").mkdir()
    (root / "csrc" / "variant.cu").write_text(TINY)
    (root / "csrc" / "plan.cpp").write_text("")
    (root / "include" / "tiny.h").write_text("#pragma once\n")
    monkeypatch.setenv("POD_ATTN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "sources_dir", lambda: tmp_path / "kernels")
    forget_ids()
    yield root
    forget_ids()


def forget_ids() -> None:
    nvcc._build_id.cache_clear()
    nvcc._library_id.cache_clear()


def fake_nvcc(folder: Path, release: str, body: str = "exit 9") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nvcc"
    says = f'[ "$1" = --version ] && echo "release {release}, V{release}.1" && exit'
    path.write_text(f"#!/bin/sh\n{says}\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No nvcc but what a test puts into the folder, which is PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(
        nvcc, "_candidates", lambda: iter([Path(p)] if (p := shutil.which("nvcc")) else [])
    )
    cache.version_of.cache_clear()
    return folder


def test_library_place_needs_no_compiler_and_follows_what_is_compiled(
    tree: Path, nowhere: Path
) -> None:
    def ids() -> tuple[str, str]:
        forget_ids()
        return nvcc.library_id(), nvcc.build_id()

    library, build = ids()
    assert nvcc.library_path(VARIANT, HOPPER).name == f"libpod_{VARIANT.name}_sm_90a.so"
    assert nvcc.library_path(VARIANT, HOPPER).parent.name == library
    # Sources of the host library, the headers among them, are no variant's.
    for name in ("plan.cpp", "checks.h"):
        (tree / "csrc" / name).write_text("// the host's\n")
        assert ids()[0] == library and ids()[1] != build
    # Nor is a header that nobody includes; one that is included by another is.
    (tree / "include" / "lonely.cuh").write_text("#pragma once\n")
    assert ids()[0] == library
    (tree / "include" / "tiny.h").write_text('#pragma once\n#include "deep.cuh"\n')
    through = ids()[0]
    (tree / "include" / "deep.cuh").write_text("#pragma once\n")
    assert len({library, through, ids()[0]}) == 3


def test_every_variant_is_compiled_from_all_kernel_headers_and_none_of_the_host() -> None:
    root = native.sources_dir() / "cuda"
    files = cache.included(root / "csrc" / "variant.cu", [root / "include"])
    names = {path.relative_to(root).as_posix() for path in files}
    headers = {p.relative_to(root).as_posix() for p in (root / "include").rglob("*.*h")}
    # Instructions that kernels/walls measures and the conformance kernel checks.
    of_others = {f"include/pod/ptx/{name}.cuh" for name in ("box_copy", "tensor_map")}
    assert names == headers - of_others | {"csrc/variant.cu"} and of_others <= headers


def test_prebuilt_library_is_used_without_a_compiler(tree: Path, nowhere: Path) -> None:
    path = nvcc.library_path(VARIANT, HOPPER)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"built elsewhere")
    assert nvcc.build(VARIANT, HOPPER) == path


def test_library_in_the_wheel_serves_where_nothing_was_built(
    tree: Path, nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        nvcc, "__file__", str(tmp_path / "site" / "pod_integrate" / "builds" / "nvcc.py")
    )
    own = nvcc.library_path(VARIANT, HOPPER)
    shipped = tmp_path / "site" / "pod_integrate" / "_variants" / own.parent.name / own.name
    shipped.parent.mkdir(parents=True)
    shipped.write_bytes(b"of the wheel")
    assert nvcc.build(VARIANT, HOPPER) == shipped
    own.parent.mkdir(parents=True)
    own.write_bytes(b"of this machine")
    assert nvcc.build(VARIANT, HOPPER) == own


def test_no_nvcc_names_the_remedy(tree: Path, nowhere: Path) -> None:
    with pytest.raises(BuildError, match=r"no nvcc 12.4 .*pip install .*\[cuda\]"):
        nvcc.build(VARIANT, HOPPER)


def test_nvcc_that_is_too_old_is_named_with_its_version(nowhere: Path) -> None:
    fake_nvcc(nowhere, "11.8")
    with pytest.raises(BuildError, match=r"bin/nvcc is 11\.8.*pip install"):
        nvcc.find_nvcc()


def test_nvcc_that_the_environment_names_is_used_or_refused(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_nvcc(nowhere, "13.0")
    chosen = fake_nvcc(tmp_path / "other", "12.6")
    monkeypatch.setenv("CUDACXX", str(chosen))
    assert nvcc.find_nvcc() == chosen
    monkeypatch.setenv("CUDACXX", str(fake_nvcc(tmp_path / "old", "12.1")))
    with pytest.raises(BuildError, match="12.1, 12.4 or newer is needed"):
        nvcc.find_nvcc()
    monkeypatch.setenv("CUDACXX", "no-such-nvcc")
    with pytest.raises(BuildError, match="CUDACXX=no-such-nvcc is no program"):
        nvcc.find_nvcc()


def test_nvcc_is_looked_for_in_path_then_cuda_home_then_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDACXX", raising=False)
    wheel = fake_nvcc(tmp_path / "site" / "nvidia" / "cu13" / "bin", "13.5")
    home = fake_nvcc(tmp_path / "home" / "bin", "12.8")
    path = fake_nvcc(tmp_path / "path", "12.9")
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path / "site" / "nvidia")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    monkeypatch.setattr(nvcc, "_SYSTEM", str(tmp_path / "no-such-folder"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    for place in (path, home, wheel):
        assert nvcc.find_nvcc() == place
        place.unlink()
    with pytest.raises(BuildError, match="none in PATH, CUDA_HOME"):
        nvcc.find_nvcc()


def test_blackwell_needs_a_newer_nvcc(tree: Path, nowhere: Path) -> None:
    fake_nvcc(nowhere, "12.6")
    with pytest.raises(BuildError, match="12.8 or newer is needed for sm_100"):
        nvcc.build(VARIANT, ARCHITECTURES["sm_100"])


def test_variant_that_cannot_fit_is_refused_before_compiling(tree: Path, nowhere: Path) -> None:
    wide = Variant.parse("bf16-d256-p128x64s2w8-d16x64s2w4-c2-v1")
    with pytest.raises(ConfigInfeasibleError, match="prefill tile needs 192 KiB"):
        nvcc.build(wide, ARCHITECTURES["sm_86"])


def has_nvcc() -> bool:
    try:
        return nvcc.find_nvcc().exists()
    except BuildError:
        return False


@pytest.mark.skipif(not has_nvcc(), reason="no nvcc here")
def test_variant_is_compiled_once_opened_and_reported_on(tree: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    path = nvcc.build(VARIANT, HOPPER, progress=lambda *step: steps.append(step))
    assert [step[:2] for step in steps] == [(0, 1), (1, 1)]
    assert VARIANT.name in steps[0][2] and "registers" in steps[1][2]
    assert nvcc.build(VARIANT, HOPPER, progress=lambda *step: steps.append(step)) == path
    assert len(steps) == 2
    report = BuildReport.read(path)
    assert (report.variant, report.arch, report.spills) == (VARIANT.name, "sm_90a", 0)
    assert report.kernels[0].static_smem == 64 * 4 and 0 < report.registers < 64
    opened = kernel_library.load(path)
    assert opened.launch and opened.error and opened.last_error() == "no device"


def test_failed_compile_shows_the_compilers_words_and_leaves_no_library(
    tree: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/bin/true")
    fake_nvcc(nowhere, "13.0", 'echo "variant.cu(3): error: no such thing"; exit 1')
    with pytest.raises(BuildError, match=r"variant.cu\(3\): error: no such thing"):
        nvcc.build(VARIANT, HOPPER)
    assert nvcc.find_library(VARIANT, HOPPER) is None


def test_library_that_does_not_load_is_named(tmp_path: Path) -> None:
    path = tmp_path / "libpod_broken.so"
    path.write_bytes(b"no library")
    with pytest.raises(BuildError, match="libpod_broken.so does not load"):
        kernel_library.load(path)
