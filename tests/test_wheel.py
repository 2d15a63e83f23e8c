"""What a wheel carries, and that its benchmarks start where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import PARTS

ROOT = Path(__file__).resolve().parent.parent
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip would make: committed files by the rules of pyproject.toml."""
    home = tmp_path_factory.mktemp("site")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *WHEEL["only-include"]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, tracked.stdout.split("\0")):
        if not (ROOT / name).exists() or any(
            f"/{name}/".startswith(f"{e}/") for e in WHEEL["exclude"]
        ):
            continue
        top, _, rest = name.partition("/")
        target = home / WHEEL["sources"].get(top, top) / rest
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return home


def python(unpacked: Path, elsewhere: Path, *words: str, path: str = "") -> str:
    """What Python prints that sees the wheel's folder only."""
    places = os.pathsep.join([str(unpacked), *filter(None, [path])])
    done = subprocess.run(
        [sys.executable, "-P", *words],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_has_types_sources_and_benchmarks_and_no_tests_or_results(unpacked: Path) -> None:
    for name in (
        "pod_integrate/py.typed",
        "tuner/py.typed",
        "tuner/page/index.html",
        "pod_integrate/_native/cuda/include/pod/pod_kernel.cuh",
        "pod_integrate/_benchmarks/benchmarks/gpu/__main__.py",
    ):
        assert (unpacked / name).is_file(), name
    names = [path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")]
    assert not [name for name in names if "/test_" in name or "/results/" in name]
    assert {path.name for path in unpacked.iterdir()} == {"pod_integrate", "tuner"}


def test_no_module_of_the_wheel_imports_what_only_tests_have(unpacked: Path) -> None:
    modules = [*unpacked.rglob("*.py")]
    assert len(modules) > 200
    for path in modules:
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"]):
                assert words[1].split(".")[0] not in {"support", "tests", "pytest"}, path


def test_benchmarks_start_from_a_wheel(unpacked: Path, tmp_path: Path) -> None:
    command = ("-m", "pod_integrate.cli", "bench", "gpu", "--", "--help")
    assert "first-contact" in python(unpacked, tmp_path, *command)
    rooms = [f"benchmarks.gpu.{room}.{part.replace('-', '_')}" for part, (room, _) in PARTS.items()]
    code = "import importlib, sys; [importlib.import_module(m).main for m in sys.argv[1:]]"
    inside = str(unpacked / "pod_integrate" / "_benchmarks")
    python(unpacked, tmp_path, "-c", code, *rooms, path=inside)
