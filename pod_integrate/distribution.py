"""Where this installation came from, so that advice to install more of it can be followed."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from pod_integrate import __version__

NAME = "pod-attention"


def version() -> str:
    """The version, from where the package says it."""
    return __version__


def install_command(extra: str) -> str:
    """A pip command that adds `extra` to this installation, from where it was installed.

    The distribution is on no public index, so the name alone would find nothing: a checkout, a
    wheel or a repository is named as pip itself recorded it (PEP 610). Without such a record it
    came from an index of the user's own, where the name is right.
    """
    return f"pip install {_requirement(_origin(), extra)}"


def _origin() -> dict[str, Any]:
    try:
        recorded = importlib.metadata.distribution(NAME).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        # Imported from a checkout that was never installed.
        folder = Path(__file__).resolve().parent.parent
        return {"url": folder.as_uri(), "dir_info": {"editable": True}}
    return dict(json.loads(recorded)) if recorded else {}


def _requirement(origin: dict[str, Any], extra: str) -> str:
    url = origin.get("url", "")
    named = f"{NAME}[{extra}]"
    if not url:
        return shlex.quote(named)
    if "vcs_info" in origin:
        info = origin["vcs_info"]
        return shlex.quote(f"{named} @ {info['vcs']}+{url}@{info['commit_id']}")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "file":
        return shlex.quote(f"{named} @ {url}")
    path = urllib.request.url2pathname(parts.path)
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return editable + shlex.quote(f"{path}[{extra}]")
