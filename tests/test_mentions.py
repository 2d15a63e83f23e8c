"""Files, modules and names that documents, comments and docstrings mention exist."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.source_names import FOLDERS, ROOT, defined, ends_of_paths, files, resolves

DOCUMENTS = [ROOT / path for path in sorted(files()) if path.endswith(".md")]
NATIVE = {".h", ".cuh", ".cpp", ".cu", ".js"}
SUFFIXES = {"py", "h", "cuh", "cpp", "cu", "js", "md"}
SOURCES = [
    ROOT / path for path in sorted(files()) if path.endswith((".py", *NATIVE, ".yaml", "Makefile"))
]
PATH = re.compile(r"(?<![\w./$*{}<-])((?:[\w.-]+/)*[\w-]+\.(?:py|cuh|cu|cpp|h|md|js|css|yaml))\b")
FOLDER = re.compile(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})(?:/[\w-]+)+)/?(?![\w.*{{<])")
DOTTED = re.compile(r"(?<![\w./-])((?:pod_integrate|benchmarks|tuner)(?:\.\w+)+)\b(?![/(*])")
# `see module.name`: what a comment sends its reader to.
SENT_TO = re.compile(r"\b(?:see|as|As) ([a-z]\w+)\.(\w+)")

# Named in prose, made while something runs.
MADE = {"pod_integrate/_native", "pod_integrate/_variants", "tuner.db", "plotly.js"}


def prose(path: Path) -> Iterator[str]:
    """Lines of a document; comments and docstrings of a source."""
    text = path.read_text()
    if path.suffix in NATIVE:
        yield from re.findall(r"//.*", text)
    elif path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.string
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from (ast.get_docstring(node) or "").splitlines()
    else:
        yield from text.splitlines()


def vanished(path: Path) -> set[str]:
    """Mentions in it of what does not exist."""
    lines = list(prose(path))
    paths = {name for line in lines for name in [*PATH.findall(line), *FOLDER.findall(line)]}
    beside = {name for name in paths if (path.parent / name).exists()}
    gone = {name for name in paths if name.lstrip("./") not in ends_of_paths()} - beside
    dotted = {name for line in lines for name in DOTTED.findall(line)}
    gone |= {n for n in dotted if n.rpartition(".")[2] not in SUFFIXES and not resolves(n)}
    return gone - MADE


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_and_module_that_a_document_mentions_exists(path: Path) -> None:
    assert vanished(path) == set()


def test_every_file_and_module_that_a_comment_or_docstring_mentions_exists() -> None:
    assert {str(path.relative_to(ROOT)): gone for path in SOURCES if (gone := vanished(path))} == {}


def test_comments_send_their_reader_to_names_that_modules_define() -> None:
    modules: dict[str, set[str]] = {}
    for file in files():
        if file.endswith(".py"):
            modules.setdefault(Path(file).stem, set()).update(defined(file))
    for path in SOURCES:
        for module, name in SENT_TO.findall("\n".join(prose(path))):
            if module in modules and name not in SUFFIXES:
                assert name in modules[module], (path, module, name)


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    there = "`op.py`, pod_integrate.op.hybrid_attention, tests/support, tuner.db"
    (tmp_path / "page.md").write_text(f"{there}; launch/away.py, pod_integrate.gone.x, tests/no")
    assert vanished(tmp_path / "page.md") == {"launch/away.py", "pod_integrate.gone.x", "tests/no"}
