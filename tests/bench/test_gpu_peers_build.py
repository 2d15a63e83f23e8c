"""FlashInfer's kernels for a machine with a GPU: what they are compiled with, how they travel."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from benchmarks.gpu.common.output import Output
from benchmarks.gpu.peers import flashinfer_build, flashinfer_toolkit
from benchmarks.gpu.visit import prebuild
from pod_integrate.builds import cache, nvcc
from pod_integrate.devices.cuda.limits import ARCHITECTURES
from pod_integrate.errors import BuildError


class Module:
    """A module of FlashInfer as JitSpec is: its sources are linked to one library."""

    def __init__(self, name: str, folder: Path, sources: dict[str, str], error: str = "") -> None:
        self.name, self._folder, self._error = name, folder, error
        self.sources = [folder / source for source in sources]
        for source, text in sources.items():
            (folder / source).write_text(text)

    def build(self) -> None:
        if self._error:
            raise RuntimeError(self._error)
        command = [cache.host_compiler(), "-shared", "-fPIC", *map(str, self.sources)]
        subprocess.run([*command, "-o", str(self.get_library_path())], check=True)

    def get_library_path(self) -> Path:
        return self._folder / f"built_{self.name}.so"


def test_architectures_are_named_as_flashinfer_names_them() -> None:
    named = {name: flashinfer_build.arch_list(arch) for name, arch in ARCHITECTURES.items()}
    assert (named["sm_80"], named["sm_90a"]) == ("8.0", "9.0a")


def test_a_module_that_fails_is_recorded_and_the_others_travel(tmp_path: Path) -> None:
    document: dict[str, dict[str, str]] = {"seconds": {}, "errors": {}}
    modules = [
        Module("pod", tmp_path, {"pod.cpp": ""}),
        Module("bad", tmp_path, {}, "x" * 9000 + " ptxas died"),
        Module("fa3", tmp_path, {"fa3.cpp": ""}),
    ]
    built = flashinfer_build.build(modules, document, Output(tmp_path, "build"))
    assert [module.name for module in built] == ["pod", "fa3"]
    assert document["errors"]["bad"].endswith("ptxas died") and len(document["errors"]) == 1
    assert json.loads((tmp_path / "build.json").read_text())["seconds"].keys() == {
        "pod",
        "bad",
        "fa3",
    }
    archive = tmp_path / "a.tar.gz"
    assert flashinfer_build.pack(built, archive) == archive.stat().st_size
    # The layout of FlashInfer's data/aot.
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "aot", filter="data")
    travelled = (tmp_path / "aot" / "fa3" / "fa3.so").read_bytes()
    assert travelled == modules[2].get_library_path().read_bytes()
    assert sorted(p.name for p in (tmp_path / "aot").iterdir()) == ["fa3", "pod"]


def test_masks_that_no_peer_asks_for_are_left_out_and_refused(tmp_path: Path) -> None:
    declared = "namespace flashinfer { template <int mask> int run(); "
    name = "batch_prefill_paged_kernel_mask_"
    sources = {
        f"{name}{mask}.cpp": f"{declared} template <> int run<{mask}>() {{ return {mask}; }} }}"
        for mask in range(4)
    }
    sources["batch_prefill.cpp"] = (
        f"{declared} }}"
        + """
        extern "C" int call(int mask) {
          switch (mask) {
            case 0: return flashinfer::run<0>();
            case 1: return flashinfer::run<1>();
            case 2: return flashinfer::run<2>();
            default: return flashinfer::run<3>();
          }
        }"""
    )
    module = Module("prefill", tmp_path, sources)
    document: dict[str, dict[str, str]] = {"seconds": {}, "errors": {}}
    (built,) = flashinfer_build.build([module], document, Output(tmp_path, "build"))
    assert flashinfer_build.undefined(built.get_library_path()) == []
    call = ctypes.CDLL(str(built.get_library_path()), mode=os.RTLD_NOW).call
    not_supported = 801
    assert [call(mask) for mask in range(4)] == [0, 1, not_supported, not_supported]


def say(compiler: Path, text: str) -> Path:
    """An nvcc that does nothing but say `text` where nvcc says what it would do."""
    compiler.parent.mkdir(parents=True, exist_ok=True)
    compiler.write_text(f"#!/bin/sh\necho '{text}' >&2\n")
    compiler.chmod(0o755)
    return compiler


def test_a_whole_toolkit_is_taken_as_it_is_and_a_wheel_completed(tmp_path: Path) -> None:
    wheel = tmp_path / "wheel"
    for name in ("include/cuda.h", "nvvm/x", "lib/libcudart.so.13"):
        (wheel / name).parent.mkdir(parents=True, exist_ok=True)
        (wheel / name).write_text(name)
    said = say(wheel / "bin" / "nvcc", f"#$ TOP={wheel}/bin/..")
    # Twice: a folder that is there is used again.
    for _ in range(2):
        home = flashinfer_toolkit.toolkit(wheel / "bin" / "nvcc", tmp_path / "made")
    assert home == tmp_path / "made"
    assert (home / "bin" / "nvcc").read_text() == said.read_text()
    assert (home / "lib64" / "libcudart.so").read_text() == "lib/libcudart.so.13"
    assert b"libcuda.so.1" in (home / "lib64" / "stubs" / "libcuda.so").read_bytes()
    # A toolkit without the driver's stub is completed as well.
    (wheel / "lib64" / "stubs").mkdir(parents=True)
    (wheel / "lib64" / "libcudart.so").write_text("whole")
    home = flashinfer_toolkit.toolkit(wheel / "bin" / "nvcc", tmp_path / "made")
    assert (home / "lib64" / "libcudart.so").read_text() == "whole"
    assert b"libcuda.so.1" in (home / "lib64" / "stubs" / "libcuda.so").read_bytes()
    (wheel / "lib64" / "stubs" / "libcuda.so").touch()
    # A script in PATH that calls another nvcc has no toolkit around it.
    script = say(tmp_path / "bin" / "nvcc", f"#$ TOP={wheel}/bin/..")
    for compiler in (said, script):
        assert flashinfer_toolkit.toolkit(compiler, tmp_path / "unused") == wheel
    assert not (tmp_path / "unused").exists()


def test_a_toolkit_without_a_runtime_names_the_remedy(tmp_path: Path) -> None:
    compiler = say(tmp_path / "bin" / "nvcc", f"#$ TOP={tmp_path}/bin/..")
    with pytest.raises(BuildError, match="nvidia-cuda-runtime"):
        flashinfer_toolkit.toolkit(compiler, tmp_path / "made")
    with pytest.raises(BuildError, match="does not name its toolkit: nvcc fatal"):
        flashinfer_toolkit.home_of(say(compiler, "nvcc fatal"))


def test_headers_that_a_toolkit_lacks_are_those_of_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, wheels = tmp_path / "toolkit", tmp_path / "site"
    monkeypatch.setattr("sys.path", ["", str(tmp_path / "none"), str(wheels)])
    with pytest.raises(BuildError, match="no curand_kernel.h, .* pip install nvidia-curand"):
        flashinfer_toolkit.missing_headers(home)
    brought = wheels / "nvidia" / "cu13" / "include" / "curand_kernel.h"
    own = home / "include" / "curand_kernel.h"
    for header, told in ((brought, str(brought.parent)), (own, "")):
        header.parent.mkdir(parents=True)
        header.touch()
        assert flashinfer_toolkit.missing_headers(home) == told


def test_flashinfer_is_told_before_it_is_imported_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FLASHINFER_CUDA_ARCH_LIST", "CUDA_HOME", "MAX_JOBS", "PATH", "CPATH"):
        monkeypatch.setenv(name, "before")
    monkeypatch.setattr(flashinfer_build, "missing_headers", lambda home: f"{home}/more")
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", str(tmp_path))
    monkeypatch.setattr(nvcc, "find_nvcc", lambda: tmp_path / "bin" / "nvcc")
    monkeypatch.setattr(flashinfer_build, "toolkit", lambda nvcc, folder: folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert flashinfer_build.prepare(ARCHITECTURES["sm_90a"], 2) == tmp_path
    told = {name: os.environ[name] for name in ("FLASHINFER_CUDA_ARCH_LIST", "MAX_JOBS")}
    assert told == {"FLASHINFER_CUDA_ARCH_LIST": "9.0a", "MAX_JOBS": "2"}
    assert os.environ["CUDA_HOME"] == str(tmp_path / "toolkit")
    assert os.environ["CPATH"] == f"before:{tmp_path}/toolkit/more"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BuildError, match="pip install flashinfer-python"):
        flashinfer_build.prepare(ARCHITECTURES["sm_90a"], 2)


def test_the_emulated_sm_has_no_peers_to_build(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--arch"):
        prebuild.main(["--peers", "--backend", "emulator", "--out", str(tmp_path)])


def test_a_peer_that_did_not_build_ends_prebuild_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run(arch: object, dims: list[int], jobs: int, folder: Path) -> dict[str, object]:
        asked.append((dims, jobs, folder))
        return {"errors": {"pod": "no memory"}, "archive": "a", "bytes": 1}

    monkeypatch.setattr(flashinfer_build, "run", run)
    options = ["--peers", "--arch", "sm_90a", "--workers", "2", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        prebuild.main([*options, "--head-dims", "64", "128"])
    assert ended.value.code == 1 and asked == [([64, 128], 2, tmp_path)]
    assert "FAILED pod: no memory" in capsys.readouterr().out
