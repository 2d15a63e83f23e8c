"""`pod-attn build`: what its flags choose, and the table of what came out."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from pod_integrate.builds import nvcc
from pod_integrate.builds.report import BuildReport, KernelUsage
from pod_integrate.cli import build
from pod_integrate.cli.terminal import console as make_console
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import Variant, defaults, shipped
from pod_integrate.devices.emulated import emulator_build
from pod_integrate.errors import BuildError, ConfigError
from pod_integrate.terms.keys import DeviceKey

NAME = "bf16-d128-p128x64s1w4-d16x64s2w4-c2-v1"


def make_report(*, registers: int = 200, spilled: int = 0, arch: str = "sm_90a") -> BuildReport:
    usage = KernelUsage(
        name="fused",
        registers=registers,
        stack=0,
        spill_stores=spilled,
        spill_loads=0,
        static_smem=16,
    )
    return BuildReport(
        variant=NAME, arch=arch, build="variants-0", compiler="nvcc", seconds=9.5, kernels=[usage]
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """Compilers replaced by one that writes reports; lists (variant, architecture) as asked for."""
    wanted: list[tuple[str, str]] = []

    def compile_for_gpu(variant: Variant, arch: limits.Architecture, **_: Any) -> Path:
        wanted.append((variant.name, arch.name))
        path = tmp_path / f"{variant.name}_{arch.name}.so"
        msgspec.structs.replace(make_report(), variant=variant.name, arch=arch.name).write(path)
        return path

    def compile_for_emulator(variant: Variant) -> Path:
        wanted.append((variant.name, "emulator"))
        return tmp_path / "emulator.so"

    monkeypatch.setattr(build, "_host_libraries", lambda _: None)
    monkeypatch.setattr(nvcc, "build", compile_for_gpu)
    monkeypatch.setattr(emulator_build, "build", compile_for_emulator)
    return wanted


def run(**flags: Any) -> str:
    console = make_console(file=io.StringIO(), width=60)
    chosen: dict[str, Any] = {"archs": [], "every": False, "names": [], "on_emulator": False}
    build.run(console, **(chosen | {"jobs": 2} | flags))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def names(variants: list[Variant], arch: str) -> set[tuple[str, str]]:
    return {(variant.name, arch) for variant in variants}


def test_without_flags_and_gpu_no_variant_is_compiled(asked: list[tuple[str, str]]) -> None:
    run()
    assert not asked


def test_without_flags_a_gpu_gets_its_defaults(
    asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    l40s = SimpleNamespace(key=DeviceKey("nvidia-l40s", "sm89", 142))
    monkeypatch.setattr(build, "device_of", lambda _: l40s)
    run()
    assert set(asked) == names(defaults(limits.ARCHITECTURES["sm_89"]), "sm_89")
    assert len(asked) == 8


def test_every_architecture_gets_all_that_is_shipped_for_it(asked: list[tuple[str, str]]) -> None:
    said = run(archs=["all"], every=True)
    want = [names(shipped(arch), arch.name) for arch in limits.ARCHITECTURES.values()]
    assert set(asked) == set().union(*want) and len(asked) == len(set(asked))
    assert f"[{len(asked)}/{len(asked)}]" in said


def test_named_variants_alone_are_compiled_and_reported(
    asked: list[tuple[str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    said = run(archs=["sm_80", "sm_90a", "sm_80"], names=[NAME], report=file)
    assert sorted(asked) == [(NAME, "sm_80"), (NAME, "sm_90a")]
    assert [r.arch for r in msgspec.json.decode(file.read_bytes(), type=list[BuildReport])] == [
        *("sm_80", "sm_90a")
    ]
    # Names stay whole on a narrow terminal.
    assert len(re.findall(rf"^{NAME}$", said, re.MULTILINE)) == 2


def test_emulator_gets_the_named_variant(asked: list[tuple[str, str]]) -> None:
    run(on_emulator=True, names=[NAME])
    assert asked == [(NAME, "emulator")]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"archs": ["sm_75"]}, "--arch sm_75 is unknown; known are sm_80"),
        ({"every": True}, "no GPU to build for; name one with --arch"),
        ({"names": ["bf16"], "archs": ["sm_80"]}, "variant 'bf16' is malformed"),
        ({"names": [NAME], "every": True}, "--all and --variant exclude each other"),
        ({"on_emulator": True, "archs": ["sm_80"]}, "--emulator has no --arch"),
    ],
    ids=str,
)
def test_flags_that_make_no_sense_are_refused(
    asked: list[tuple[str, str]], flags: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        run(**flags)
    assert not asked


def test_failed_compile_ends_the_command(
    asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Path:
        raise BuildError("nvcc failed")

    monkeypatch.setattr(nvcc, "build", fail)
    with pytest.raises(BuildError, match="nvcc failed"):
        run(archs=["sm_90a"])


def test_table_marks_spills_and_ctas_that_do_not_fit() -> None:
    console = make_console(file=io.StringIO(), width=120)
    reports = [make_report(), make_report(spilled=12), make_report(arch="sm_86")]
    console.print(build.table(reports))
    rows = console.file.getvalue().splitlines()[1:]  # type: ignore[attr-defined]
    assert [row.split()[1:] for row in rows] == [
        ["sm_90a", "200", "0", "68.0", "2", "9.5"],
        ["sm_90a", "200", "12", "68.0", "2", "9.5"],
        ["sm_86", "200", "0", "68.0", "1", "of", "2", "9.5"],
    ]


@pytest.mark.parametrize(
    ("registers", "arch", "ctas"),
    [(128, "sm_90a", 3), (200, "sm_90a", 2), (255, "sm_80", 2), (128, "sm_86", 1)],
)
def test_resident_ctas_follow_registers_and_shared_memory(
    registers: int, arch: str, ctas: int
) -> None:
    # 69 KiB of shared memory: three fit 228 KiB, two 164 KiB, one 100 KiB.
    assert make_report(registers=registers, arch=arch).resident_ctas == ctas


def test_name_that_is_wrong_is_told_before_anything_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reached(*_: Any) -> None:
        raise AssertionError("it compiled first")

    monkeypatch.setattr(build, "_host_libraries", reached)
    screen = make_console(file=io.StringIO())
    for arch, names in (("sm_1", []), ("sm_90a", ["foo"])):
        with pytest.raises(ConfigError):
            build.run(screen, archs=[arch], every=False, names=names, on_emulator=False, jobs=1)
