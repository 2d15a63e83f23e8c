"""Files that commands write: whole or as before, with the mode that they had, never a device."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from pod_integrate.cli.paths import writable_file, write_whole
from pod_integrate.errors import SettingsError


def test_output_that_cannot_be_written_whole_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, full = tmp_path / "kept.json", Path.write_bytes
    kept.write_text("old")

    def half(self: Path, data: bytes) -> int:
        full(self, data[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(SettingsError, match="kept.json cannot be used: No space left"):
        write_whole(kept, b"new content")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("kept.json", "old")]


def test_output_that_is_there_keeps_its_mode_and_its_protection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text("old")
    kept.chmod(0o600)
    write_whole(kept, b"new")
    assert kept.read_bytes() == b"new" and stat.S_IMODE(kept.stat().st_mode) == 0o600
    # Root may write anything, so what another user is told is said here.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SettingsError, match="Permission denied"):
        write_whole(kept, b"newer")
    assert kept.read_bytes() == b"new"


def test_output_follows_a_link_and_replaces_no_device(tmp_path: Path) -> None:
    link, target, pipe = (tmp_path / name for name in ("link", "target", "pipe"))
    link.symlink_to(target)
    write_whole(writable_file(link), b"data")
    assert link.is_symlink() and target.read_bytes() == b"data"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(writable_file(pipe), b"data")
    assert os.read(reader, 9) == b"data" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)
    with pytest.raises(SettingsError, match="Is a directory"):
        writable_file(tmp_path)
