"""Builds are named by their sources, cached, and safe to start twice."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pod_integrate.builds import native
from pod_integrate.errors import BuildError

ROOT = Path(__file__).resolve().parents[2]
TINY = """
#include <tvm/ffi/function.h>
int64_t answer(int64_t x) { return x + 1; }
TVM_FFI_DLL_EXPORT_TYPED_FUNC(answer, answer);
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source tree of one small file and a cache of its own."""
    source = tmp_path / "kernels" / "cpu" / "src"
    source.mkdir(parents=True)
    (source / "tiny.cpp").write_text(TINY)
    monkeypatch.setenv("POD_ATTN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "sources_dir", lambda: tmp_path / "kernels")
    native._build_id.cache_clear()
    yield source
    native._build_id.cache_clear()


def test_build_id_follows_the_sources(tiny: Path) -> None:
    first = native.build_id("cpu")
    assert re.fullmatch(r"cpu-[0-9a-f]{10}", first)
    (tiny / "tiny.cpp").write_text(TINY + "\n// more\n")
    native._build_id.cache_clear()
    assert native.build_id("cpu") != first


def test_build_reports_progress_once_and_is_cached(tiny: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    path = native.build("cpu", progress=lambda *step: steps.append(step))
    assert path == native.library_path("cpu") and path.exists()
    assert [step[:2] for step in steps] == [(1, 2), (2, 2)]
    assert "tiny" in steps[0][2]
    native.build("cpu", progress=lambda *step: steps.append(step))
    assert len(steps) == 2


def test_failed_build_shows_the_compilers_words_and_leaves_no_library(tiny: Path) -> None:
    (tiny / "tiny.cpp").write_text("int broken( {")
    native._build_id.cache_clear()
    with pytest.raises(BuildError, match="error:"):
        native.build("cpu")
    assert not native.library_path("cpu").exists()


def test_missing_compiler_names_the_remedy(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="looked for no-such-compiler.*apt install"):
        native.build("cpu")


def test_two_processes_building_at_once_share_one_library(tiny: Path) -> None:
    program = f"""
from pathlib import Path
from pod_integrate.builds import native
native.sources_dir = lambda: Path({str(tiny.parent.parent)!r})
steps = []
native.build("cpu", progress=lambda *step: steps.append(step))
print(len(steps))
"""
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(said) == ["0", "2"]


def test_compiler_that_the_environment_names_is_used(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "my-cxx"
    real = shutil.which("g++") or shutil.which("clang++")
    wrapper.write_text(f'#!/bin/sh\ntouch {tmp_path}/used\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    native.build("cpu")
    assert (tmp_path / "used").exists()


@pytest.mark.parametrize("strict", [True, False])
def test_a_warning_fails_the_build_of_a_test_run_and_no_users(
    strict: bool, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny / "warned.cpp").write_text("int warned(int unused) { return 0; }\n")
    native._build_id.cache_clear()
    compiler = ROOT / ".ci" / "strict-c++"
    planned = subprocess.run(
        ["make", "-n", "-B", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"CXX={compiler} " in planned.stdout
    if not strict:
        assert native.build("cpu").exists()
        return
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(BuildError, match="unused"):
        native.build("cpu")
