"""Paths that the command line was given, looked at before any work is done for them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pod_integrate.errors import SettingsError


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a SettingsError that names `path` as the user gave it."""
    try:
        yield
    except OSError as error:
        # One of ours has a message of its own and no number.
        said = f"{path} cannot be used: {error.strerror}; choose another"
        raise SettingsError(said if error.strerror else str(error)) from error


def writable_folder(folder: Path, *, mode: int = 0o777) -> Path:
    """`folder`, made where it is missing; raises SettingsError where nothing can be written."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
        # Asked by doing: permission bits say little of a read-only mount or of root.
        with tempfile.TemporaryFile(dir=folder):
            return folder


def writable_file(file: Path) -> Path:
    """`file`, whose folder has to exist; raises SettingsError when it cannot be written there."""
    with naming(file):
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_device(file):
            return file
        with tempfile.TemporaryFile(dir=file.resolve().parent):
            return file


def write_whole(file: Path, data: bytes) -> None:
    """Write a file so that it has all of `data` or what it had before; else SettingsError.

    A link is followed, and a device or a pipe is written to and not replaced. A file that is there
    keeps its mode, and one that may not be written is not replaced.
    """
    with naming(file):
        if _is_device(file):
            file.write_bytes(data)
            return
        target = file.resolve()
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            partial.write_bytes(data)
            if target.exists():
                shutil.copymode(target, partial)
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def read_token(file: Path) -> str:
    """The token of a file; raises SettingsError where it has none: nobody means an empty one."""
    token = read_text(file).strip()
    if not token:
        raise SettingsError(f"{file} holds no token; write one to it, or leave the option out")
    return token


def _is_device(file: Path) -> bool:
    return file.exists() and not file.is_file()


def read_text(file: Path) -> str:
    """Text of a file; raises SettingsError when it cannot be read or is not UTF-8."""
    try:
        with naming(file):
            return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not text: {error}") from error
