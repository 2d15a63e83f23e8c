"""Reading the deployment files for the tests: documents, containers, commands, variables."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pod_integrate.cli.app import app

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments"
DOCKERFILE = DEPLOYMENTS / "docker" / "Dockerfile"
KUBERAY = DEPLOYMENTS / "kuberay"
Doc = dict[str, Any]


def project() -> Doc:
    """pyproject.toml's [project]."""
    found: Doc = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def compose() -> Doc:
    """compose.yaml with its anchors resolved."""
    found: Doc = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
    return found


def manifests() -> list[Doc]:
    """Every Kubernetes object under kuberay/, the Kustomization excepted."""
    files = sorted(path for path in KUBERAY.glob("*.yaml") if path.name != "kustomization.yaml")
    return [doc for path in files for doc in yaml.safe_load_all(path.read_text())]


def manifest(kind: str) -> Doc:
    """The only object of a kind."""
    (found,) = (doc for doc in manifests() if doc["kind"] == kind)
    return found


def pod_templates() -> Iterator[tuple[str, Doc]]:
    """(name, pod template) of the Deployment and of the RayService's groups."""
    yield "sglang", manifest("Deployment")["spec"]["template"]
    cluster = manifest("RayService")["spec"]["rayClusterConfig"]
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]


def containers(template: Doc) -> list[Doc]:
    """Containers and init containers of a pod template."""
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def text_files() -> list[Path]:
    """Every file that a user runs or copies from."""
    return sorted(path for path in DEPLOYMENTS.rglob("*") if path.is_file())


def command_lines() -> list[list[str]]:
    """Words of every `pod-attn ...` and `sglang ...` command in the deployment files."""
    lines = []
    for service in compose()["services"].values():
        for word in service.get("command", []):
            joined = word.replace("\\\n", " ")
            lines += re.findall(r"(?:pod-attn|sglang serve) [^\n|&]*", joined)
    for _, template in pod_templates():
        for container in containers(template):
            words = [*container.get("command", []), *container.get("args", [])]
            lines += re.findall(r"(?:pod-attn|sglang serve) .*", " ".join(words))
    lines.append(
        re.sub(r'[\[\],"]', " ", re.findall(r"^CMD (.*)$", DOCKERFILE.read_text(), re.M)[-1])
    )
    return [line.split() for line in lines]


def pod_attn_options(words: list[str]) -> set[str]:
    """Options that a `pod-attn` (sub)command takes."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
    return {option for parameter in command.params for option in parameter.opts}


def sglang_options() -> set[str]:
    """Names of SGLang's own argument list, read without importing it (that takes a minute)."""
    found = importlib.util.find_spec("sglang")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("sglang is not installed: its options are not checked")
    names = Path(found.submodule_search_locations[0]) / "srt" / "arg_groups" / "field_order.py"
    return {f"--{name.replace('_', '-')}" for name in re.findall(r'"(\w+)"', names.read_text())}
