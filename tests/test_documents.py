"""What documents point to exists: files, sections, commands and their options."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks.gpu.__main__ import PARTS
from pod_integrate.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(p for d in ("docs", "deployments", "kernels") for p in ROOT.glob(f"{d}/**/*.md")),
    ]
)
SOURCES = [*DOCUMENTS, *ROOT.glob("deployments/*.yaml"), *ROOT.glob("benchmarks/*.py")]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def sections(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_link_leads_to_a_file_and_a_section_that_exist(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in link:
            continue
        file, _, section = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not section or section in sections(target), link


def commands(text: str, program: str) -> Iterator[list[str]]:
    """Words of each `program ...` in code: spans, fenced lines, joined where they go on."""
    joined = text.replace("\\\n", " ")
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", joined, re.DOTALL)]
    fenced = [line.strip() for line in joined.splitlines()]
    for line in {*spans, *fenced}:
        found = re.match(rf"(?:[A-Z_]+=\S+ |exec |\w+  )*({re.escape(program)} .*)", line)
        if found:
            yield shlex.split(found[1].replace("...", ""), comments=True)


def pod_attn(words: list[str]) -> tuple[Any, list[str]]:
    """The Typer command that words name, and the words that it gets."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_pod_attn_command_in_it_is_one_and_takes_its_options(path: Path) -> None:
    for words in commands(path.read_text(), "pod-attn"):
        command, rest = pod_attn(words)
        assert not hasattr(command, "commands") or not rest or rest[0].startswith("-"), words
        own = rest[: rest.index("--")] if "--" in rest else rest
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        if command.name != "transformers":
            given = {word.split("=")[0] for word in own if word.startswith("--")}
            assert given <= known, words


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_script_and_make_target_in_it_exists(path: Path) -> None:
    text = path.read_text()
    for words in commands(text, "python"):
        if words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), words
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(text, "make"):
        assert words[1] in targets, words


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_part_of_the_gpu_benchmark_in_it_exists(path: Path) -> None:
    for words in commands(path.read_text(), "pod-attn"):
        if words[1:4] == ["bench", "gpu", "--"]:
            assert words[4] in PARTS, words
    for words in commands(path.read_text(), "python"):
        if words[1:3] == ["-m", "benchmarks.gpu"]:
            assert words[3] in PARTS, words


def errors() -> set[str]:
    """Names of PodAttentionError and of every class in the sources that is one."""
    bases: dict[str, set[str]] = {}
    for path in (p for room in ("pod_integrate", "tuner") for p in ROOT.glob(f"{room}/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    found = {"PodAttentionError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def test_every_error_is_in_troubleshooting_with_a_remedy() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+Error)` \| .+ \| (.+) \|$", page, re.MULTILINE))
    assert set(rows) == errors() - {"PodAttentionError"}
    assert all(len(remedy) > 20 for remedy in rows.values())
    assert len(errors()) > 14


@pytest.mark.parametrize("room", ["cpu", "cuda", "emulator"])
def test_every_native_header_is_in_the_readme_of_its_room(room: str) -> None:
    # The emulator's own README has a row for each; of cuda/ there is one for each folder.
    own = ROOT / "kernels" / room / "README.md"
    page = (own if own.exists() else ROOT / "kernels" / "README.md").read_text()
    headers = [
        p for p in ROOT.glob(f"kernels/{room}/include/pod/**/*") if p.suffix in (".h", ".cuh")
    ]
    assert headers
    for path in headers:
        folder = path.parent.relative_to(ROOT / "kernels" / room / "include" / "pod")
        named = f"{path.name}`" in page or (room == "cuda" and f"`{folder}/" in page)
        assert named, path


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for path in ROOT.glob("docs/*.md"):
        assert path.name == "README.md" or f"({path.name})" in index, path.name


def test_commands_are_found_in_the_documents_at_all() -> None:
    found = [words for path in DOCUMENTS for words in commands(path.read_text(), "pod-attn")]
    assert len({tuple(words) for words in found}) > 15
    assert ["pod-attn", "tuner", "up"] in found
