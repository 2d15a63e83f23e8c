"""Where compiled libraries are kept, under which name, and who compiles when several need one."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import filelock
import platformdirs

from pod_integrate import settings
from pod_integrate.errors import BuildError

# Called as progress(done, total, what) before the first and after every compile step.
Progress = Callable[[int, int, str], None]
LOCK_SECONDS = 1800
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.MULTILINE)


def directory() -> Path:
    """Folder of all builds: POD_ATTN_CACHE_DIR, else the user's cache."""
    chosen = settings.load().cache_dir
    return chosen or Path(platformdirs.user_cache_dir("pod-attention")) / "native"


def digest(roots: Iterable[Path], suffixes: Iterable[str], flags: Iterable[str]) -> str:
    """Ten hex digits that follow every source below `roots` with one of `suffixes`, and `flags`."""
    wanted = frozenset(suffixes)
    sources = (
        (root, path) for root in roots for path in sorted(root.rglob("*")) if path.suffix in wanted
    )
    return _digest(sources, flags)


def digest_files(root: Path, files: Iterable[Path], flags: Iterable[str]) -> str:
    """As digest(), of some files below `root`."""
    return _digest(((root, path) for path in sorted(files)), flags)


def _digest(sources: Iterable[tuple[Path, Path]], flags: Iterable[str]) -> str:
    value = hashlib.sha256()
    for root, path in sources:
        value.update(f"{path.relative_to(root).as_posix()}\0".encode())
        value.update(path.read_bytes())
    for flag in flags:
        value.update(flag.encode())
    return value.hexdigest()[:10]


def included(source: Path, folders: Iterable[Path]) -> set[Path]:
    """`source` and all that it includes in quotes, directly or through others.

    Found as a compiler finds it: beside the file that names it, then in `folders`. What is in
    neither is the compiler's own, or not compiled.
    """
    found, left, folders = {source}, [source], list(folders)
    while left:
        path = left.pop()
        for name in _INCLUDE.findall(path.read_text()):
            places = (folder / name for folder in (path.parent, *folders))
            file = next((place for place in places if place.is_file()), None)
            if file is not None and file not in found:
                found.add(file)
                left.append(file)
    return found


def build_once(path: Path, compile_to: Callable[[Path], None]) -> Path:
    """Call compile_to(path) unless `path` exists; processes that build at once wait on a file lock.

    `compile_to` has to make the file appear complete or not at all. Raises BuildError when another
    process holds the lock for LOCK_SECONDS, or when the folder cannot be written.
    """
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS):
            if not path.exists():
                compile_to(path)
    except filelock.Timeout as error:
        raise BuildError(
            f"another process has held {error.lock_file} for {LOCK_SECONDS} s; end it and retry"
        ) from error
    except OSError as error:
        raise _cannot_write(path.parent, error) from error
    return path


def require_writable() -> Path:
    """The folder of all builds, made where it is missing; raises BuildError if it takes no file."""
    folder = directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


def _cannot_write(folder: Path, error: OSError) -> BuildError:
    return BuildError(
        f"cannot write {folder}: {error.strerror or error}; set POD_ATTN_CACHE_DIR to a folder "
        "that can be written"
    )


def host_compiler() -> str:
    """Path of $CXX, else of g++ or clang++; raises BuildError with the remedy."""
    wanted = os.environ.get("CXX")
    candidates = [wanted] if wanted else ["g++", "clang++"]
    for name in candidates:
        found = shutil.which(name)
        if found:
            return found
    raise BuildError(
        f"no C++ compiler: looked for {', '.join(candidates)}. Install one (apt install g++) or "
        "set CXX to a C++17 compiler"
    )


def said_by(command: Sequence[str]) -> str:
    """What a compiler printed; raises BuildError with that when it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def compile_whole(command: Iterable[str], output: Path) -> None:
    """Run a compiler with `-o`; `output` appears complete or not at all. Raises as said_by."""
    new = output.with_suffix(".new")
    said_by([*command, "-o", str(new)])
    os.replace(new, output)


@functools.lru_cache(maxsize=8)
def version_of(compiler: str) -> str:
    """What the compiler says of itself; raises BuildError when it cannot be run."""
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{compiler} --version failed: {error}; reinstall it") from error
    return done.stdout
