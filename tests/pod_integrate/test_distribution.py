"""Advice to install more names the place that this installation came from."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from pod_integrate import distribution


class Installed:
    def __init__(self, origin: dict[str, Any] | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("origin", "arguments"),
    [
        (None, ["pod-attention[cuda]"]),
        (
            {"url": "file:///home/me/pod%20attention", "dir_info": {"editable": True}},
            ["-e", "/home/me/pod attention[cuda]"],
        ),
        ({"url": "file:///src/pod-attention", "dir_info": {}}, ["/src/pod-attention[cuda]"]),
        (
            {"url": "file:///w/pod_attention-0.1.0-py3-none-any.whl", "archive_info": {}},
            ["/w/pod_attention-0.1.0-py3-none-any.whl[cuda]"],
        ),
        (
            {"url": "https://x/pod.whl", "archive_info": {}},
            ["pod-attention[cuda] @ https://x/pod.whl"],
        ),
        (
            {"url": "https://x/pod.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            [f"pod-attention[cuda] @ git+https://x/pod.git@{COMMIT}"],
        ),
    ],
    ids=["index", "editable", "folder", "wheel", "address", "repository"],
)
def test_command_installs_from_where_we_came(
    origin: dict[str, Any] | None, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed(origin))
    assert shlex.split(distribution.install_command("cuda")) == ["pip", "install", *arguments]


def test_checkout_that_was_never_installed_is_named_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    root = Path(distribution.__file__).resolve().parent.parent
    words = shlex.split(distribution.install_command("tuner"))
    assert words == ["pip", "install", "-e", f"{root}[tuner]"]


def test_extras_that_we_recommend_exist() -> None:
    from pod_integrate.cli import doctor

    known = importlib.metadata.metadata("pod-attention").get_all("Provides-Extra") or []
    asked = {extra for extra in doctor._PACKAGES.values() if extra} | {"cuda"}
    assert asked <= set(known)
    assert doctor._PACKAGES["transformers"] == "transformers"
