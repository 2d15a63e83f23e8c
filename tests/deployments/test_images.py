"""The image and the versions that deployments name agree with the project."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from deployment_files import (
    DEPLOYMENTS,
    DOCKERFILE,
    ROOT,
    compose,
    manifest,
    project,
    text_files,
)


def test_whoever_compiles_for_a_gpu_may_write_where_it_compiles_to() -> None:
    extra = yaml.safe_load((DEPLOYMENTS / "compose.gpu.yaml").read_text())["services"]
    services = compose()["services"]
    for name, environment in (
        ("tuner", extra["tuner"]["environment"]),
        ("sglang-gpu", services["sglang-gpu"]["environment"]),
    ):
        mounts = [volume.split(":")[1] for volume in services[name]["volumes"]]
        cache = Path(environment["POD_ATTN_CACHE_DIR"])
        assert any(cache.is_relative_to(mount) for mount in mounts)


def test_extras_of_the_image_and_of_the_documents_exist() -> None:
    text = "\n".join(path.read_text() for path in text_files())
    named = re.findall(r"EXTRAS[=:] ?(?:\$\{\w+:-)?([a-z,]+)", text)
    assert any("cuda" in extras for extras in named)
    for extras in named:
        assert set(extras.split(",")) <= set(project()["optional-dependencies"]), extras


def test_images_are_pinned_to_a_version() -> None:
    text = "\n".join(path.read_text() for path in text_files() if path.suffix != ".md")
    images = re.findall(r"(?:image: |_IMAGE=)(?:\$\{\w+:-)?([^\s}]+)", text)
    assert len(images) > 5
    for image in images:
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+[\w.-]*", image), image


def test_versions_agree_with_the_project() -> None:
    text = DOCKERFILE.read_text()
    pins = (ROOT / "constraints.txt").read_text()
    ray = manifest("RayService")["spec"]["rayClusterConfig"]["rayVersion"]
    assert re.search(rf"^ray=={re.escape(ray)}$", pins, re.M)
    (uv,) = re.findall(r"UV_VERSION=(\S+)", text)
    assert f"UV_VERSION := {uv}\n" in (ROOT / "Makefile").read_text()
    extras = set(re.findall(r"EXTRAS=(\S+)", text)[-1].split(","))
    assert extras <= set(project()["optional-dependencies"])


def test_dockerfile_copies_what_exists_and_ends_as_an_ordinary_user() -> None:
    text = DOCKERFILE.read_text()
    sources = [
        word for line in re.findall(r"^COPY (?!--)(.*)$", text, re.M) for word in line.split()[:-1]
    ]
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists() and f"!{source}" in ignored, source
    final = text[text.rindex("\nFROM ") :]
    assert re.findall(r"^USER (\S+)$", final, re.M) == ["10001:10001"]
    # KubeRay's default probes run it.
    assert "wget" in text
