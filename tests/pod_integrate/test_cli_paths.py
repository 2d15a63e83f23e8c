"""Every path that a command takes: one that cannot be used gives one line and a code."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from support.command import run
from typer.testing import CliRunner

from pod_integrate import __version__
from pod_integrate.cli import app as cli
from pod_integrate.errors import BuildError

# How each path is given; other arguments make the command reach it and no further.
PATHS: dict[str, list[str]] = {
    "demo trace": ["demo", "--once", "--trace", "{}"],
    "demo state": ["demo", "--once", "--state", "{}"],
    "answers state": ["answers", "--state", "{}"],
    "build report": ["build", "--arch", "sm_80", "--report", "{}"],
    "demo-model directory": ["demo-model", "{}"],
    "advise file": ["advise", "{}"],
    "advise model": ["advise", "nothing.csv", "--model", "{}"],
    "explain config": ["explain", "p512@4k", "{}"],
    "replay file": ["replay", "{}", "--dry"],
    "replay table": ["replay", "nothing.csv", "--dry", "--table", "{}"],
    "replay state": ["replay", "nothing.csv", "--dry", "--state", "{}"],
    "table export file": ["table", "export", "http://127.0.0.1:9", "{}"],
    "table import file": ["table", "import", "{}", "http://127.0.0.1:9"],
    "tuner up state_dir": ["tuner", "up", "--no-ray", "--state-dir", "{}"],
    "tuner up token_file": ["tuner", "up", "--no-ray", "--token-file", "{}"],
}
READ = (
    "demo trace",
    "replay file",
    "advise file",
    "advise model",
    "explain config",
    "table import file",
    "tuner up token_file",
)


def commands(app: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command as it is typed, with what Typer was told of it."""
    for info in app.registered_commands:
        assert info.callback is not None
        yield prefix + (info.name or info.callback.__name__), info
    for group in app.registered_groups:
        assert group.typer_instance is not None and group.name
        yield from commands(group.typer_instance, f"{prefix}{group.name} ")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that gets past its paths fails the test instead of building or serving."""

    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("the path was not looked at before the work began")

    monkeypatch.setattr("pod_integrate.builds.native.build", reached)
    monkeypatch.setattr("pod_integrate.builds.nvcc.build", reached)
    monkeypatch.setattr("tuner.host.service.run_tuner", reached)
    monkeypatch.setattr("pod_integrate.demo.processes.Child.__init__", reached)


def test_no_path_of_any_command_is_left_out_below() -> None:
    found = set()
    for name, info in commands(cli.app):
        for parameter, kind in inspect.get_annotations(info.callback).items():
            if re.search(r"\bPath\b|\bFile", str(kind)):
                found.add(f"{name} {parameter}")
    # A file or the text itself.
    found.add("explain config")
    assert found == set(PATHS)


@pytest.mark.parametrize("where", ["no such file system", "below a file"])
@pytest.mark.parametrize("name", PATHS)
def test_path_that_cannot_be_used_is_one_line_and_a_code(
    name: str, where: str, no_work: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    path = "/proc/x/y" if where == "no such file system" else str(tmp_path / "file" / "x")
    code, _, said = run(capsys, *(word.format(path) for word in PATHS[name]))
    assert code in (1, 2)
    flat = said.replace("\n", "").replace("│", "").replace(" ", "")
    assert path.replace(" ", "") in flat and "Traceback" not in said
    if "Usage" not in said:
        assert len(said.splitlines()) == 1, said


@pytest.mark.parametrize("name", READ)
def test_file_that_is_no_text_is_refused_by_name(
    name: str, no_work: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x7fELF\xff\xfe\x00")
    code, _, said = run(capsys, *(word.format(binary) for word in PATHS[name]))
    assert code == 2 and str(binary) in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "command", [["tuner", "up", "--no-ray"], ["tuner", "pause", "--url", "http://127.0.0.1:9"]]
)
def test_token_file_without_a_token_is_no_leave_to_go_without(
    command: list[str], no_work: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(" \n")
    code, _, said = run(capsys, *command, "--token-file", str(tmp_path / "token"))
    assert code == 2 and "holds no token" in said


def test_no_client_of_ours_asks_a_proxy_for_what_is_inside() -> None:
    calls = {"get", "post", "request", "stream", "Client", "AsyncClient"}
    found = 0
    for package in ("pod_integrate", "tuner"):
        for path in (Path(__file__).parents[2] / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id == "httpx" and node.func.attr in calls:
                    found += 1
                    given = {word.arg: word.value for word in node.keywords}.get("trust_env")
                    assert isinstance(given, ast.Constant) and given.value is False, (
                        f"{path}:{node.lineno}"
                    )
    assert found >= 5


def test_cache_folder_that_cannot_be_written_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pod_integrate.builds.cache import build_once

    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"cannot write .*file/native.*POD_ATTN_CACHE_DIR"):
        build_once(tmp_path / "file" / "native" / "lib.so", lambda _: None)


def test_error_of_any_command_keeps_its_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remedy = "pip install '.[cuda]' or [red]x[/] :warning: list[int]"

    def fail(*_: Any, **__: Any) -> None:
        raise BuildError(remedy)

    monkeypatch.setattr("pod_integrate.cli.build.run", fail)
    assert run(capsys, "build")[::2] == (2, f"BuildError: {remedy}\n")


# Every argument of `transformers` goes to another program.
@pytest.mark.parametrize("name", [n for n, _ in commands(cli.app) if n != "transformers"])
def test_usage_error_of_every_command_keeps_its_brackets(name: str) -> None:
    done = CliRunner().invoke(cli.app, [*name.split(), "--[cuda]"], env={"COLUMNS": "200"})
    assert done.exit_code == 2 and "--[cuda]" in done.output


def test_version_is_the_one_of_the_package() -> None:
    done = CliRunner().invoke(cli.app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"pod-attn {__version__}\n")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--head-dim", "40"], "head dim must be a multiple of 16 in 32..256, got 40"),
        (["--head-dim", "16"], "got 16"),
        (["--head-dim", "272"], "got 272"),
        (["--q-heads", "3", "--kv-heads", "2"], "got 3 and 2"),
    ],
)
def test_demo_model_that_nobody_could_serve_is_refused(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run(capsys, "demo-model", str(tmp_path / "m"), *flags)
    assert code == 2 and words in said and not (tmp_path / "m").exists()


@pytest.mark.parametrize(("command", "free"), [(cli.demo, set()), (cli.demo_model, {"head_dim"})])
def test_every_number_of_a_demo_has_two_ends(command: Any, free: set[str]) -> None:
    hints = get_type_hints(command, include_extras=True)
    numbers = {
        n: h.__metadata__[0] for n, h in hints.items() if get_args(h)[:1] in ((int,), (float,))
    }
    assert len(numbers) >= 5
    assert {n for n, option in numbers.items() if None in (option.min, option.max)} == free


def test_refused_head_dims_are_those_that_the_kernel_refuses() -> None:
    import torch

    from pod_integrate import HybridBatch, hybrid_attention
    from pod_integrate.errors import ShapeError
    from pod_integrate.terms.geometry import takes_head_dim

    batch = HybridBatch.build(
        [1], [1], page_indices=torch.zeros(1, dtype=torch.int32), page_starts=[0], page_size=1
    )
    for dim in (8, 16, 24, 32, 40, 48, 64, 72, 80, 96, 128, 240, 248, 256, 264, 272):
        q = torch.zeros(1, 1, dim)
        if takes_head_dim(dim):
            hybrid_attention(q, q[None], q[None], batch)
        else:
            with pytest.raises(ShapeError, match="head dim"):
                hybrid_attention(q, q[None], q[None], batch)
