"""What can be known about the deployment files without a daemon and without a cluster.

The RayService schema beside this file is written by hand from the published API: neither Ray nor
kubernetes-validate brings KubeRay's own. Rules that only its webhook knows are not checked.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from deployment_files import (
    DEPLOYMENTS,
    KUBERAY,
    command_lines,
    compose,
    containers,
    manifest,
    manifests,
    pod_attn_options,
    pod_templates,
    project,
    sglang_options,
    text_files,
)

RAY_SERVICE = json.loads((Path(__file__).parent / "rayservice.schema.json").read_text())
SECRET = re.compile(r"TOKEN|PASSWORD|SECRET|DATABASE_URL|API_KEY")


def check_compose(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_compose_files_are_valid_and_a_misspelt_key_is_not(tmp_path: Path) -> None:
    for path in DEPLOYMENTS.glob("compose*.yaml"):
        good = check_compose(path)
        assert good.returncode == 0, good.stdout
    bad = tmp_path / "compose.yaml"
    bad.write_text(
        (DEPLOYMENTS / "compose.yaml").read_text().replace("healthcheck:", "healtcheck:")
    )
    assert check_compose(bad).returncode == 1


@pytest.mark.parametrize(
    "doc", manifests(), ids=lambda doc: f"{doc['kind']}-{doc['metadata']['name']}"
)
def test_manifest_is_valid_for_its_kind(doc: dict[str, Any]) -> None:
    if doc["kind"] == "RayService":
        jsonschema.Draft202012Validator(RAY_SERVICE).validate(doc)
    else:
        kubernetes_validate.validate(doc, "1.37", strict=True)


@pytest.mark.parametrize(("name", "template"), list(pod_templates()))
def test_pod_template_is_a_valid_pod(name: str, template: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}
    kubernetes_validate.validate(pod, "1.37", strict=True)


def test_misspelt_key_in_a_pod_template_is_refused() -> None:
    _, template = next(pod_templates())
    spec = json.loads(json.dumps(template["spec"]).replace("livenessProbe", "livenesProbe"))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, "1.37", strict=True)


def test_every_manifest_belongs_to_the_kustomization() -> None:
    listed = yaml.safe_load((KUBERAY / "kustomization.yaml").read_text())["resources"]
    files = {path.name for path in KUBERAY.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == files


def test_kustomize_renders_every_object_with_our_version() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no `kubectl` on PATH: kustomize is not run")
    done = subprocess.run(
        [kubectl, "kustomize", KUBERAY], capture_output=True, text=True, timeout=60, check=True
    )
    rendered = list(yaml.safe_load_all(done.stdout))
    assert len(rendered) == len(manifests())
    assert {doc["metadata"].get("namespace") for doc in rendered} == {None, "pod-attention"}
    images = set(re.findall(r"image: (\S+)", done.stdout))
    assert images == {f"pod-attention:{project()['version']}"}


def test_every_variable_of_ours_exists_in_the_settings() -> None:
    from pod_integrate.settings import Settings
    from tuner.settings import TunerSettings

    known = {f"POD_ATTN_{name.upper()}" for name in Settings.model_fields}
    known |= {f"POD_TUNER_{name.upper()}" for name in TunerSettings.model_fields}
    text = "\n".join(path.read_text() for path in text_files())
    used = set(re.findall(r"\bPOD_(?:ATTN|TUNER)_[A-Z_]+", text))
    assert used and used - known == set()


@pytest.mark.parametrize("words", command_lines(), ids=lambda words: " ".join(words[:3]))
def test_every_option_exists_in_the_program_that_gets_it(words: list[str]) -> None:
    options = {word.split("=")[0] for word in words if word.startswith("--") and len(word) > 2}
    known = sglang_options() if words[0] == "sglang" else pod_attn_options(words[1:])
    assert options - known == set()


def test_commands_in_compose_are_correct_shell() -> None:
    for service in compose()["services"].values():
        command = service.get("command", [])
        for script in command[2:] if command[:1] == ["sh"] else []:
            subprocess.run(["sh", "-n", "-c", script.replace("$$", "$")], check=True, timeout=10)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_model_is_there_before_the_server_of_either_profile_starts(profile: str) -> None:
    services = compose()["services"]
    assert profile in services["demo-model"]["profiles"]
    server = services[f"sglang-{profile}"]
    assert server["profiles"] == [profile]
    assert server["depends_on"]["demo-model"] == {"condition": "service_completed_successfully"}


def test_kernel_has_as_many_threads_as_the_container_has_cpus() -> None:
    server = compose()["services"]["sglang-cpu"]
    cpus = server["deploy"]["resources"]["limits"]["cpus"]
    assert cpus == server["environment"]["POD_ATTN_THREADS"] == "${SGLANG_CPUS:-4}"


def test_ports_are_published_on_loopback_only() -> None:
    ports = [p for service in compose()["services"].values() for p in service.get("ports", [])]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)
    services = [doc for doc in manifests() if doc["kind"] == "Service"]
    assert {doc["spec"]["type"] for doc in services} == {"ClusterIP"}


def test_the_dashboard_is_named_where_it_is_published() -> None:
    tuner = compose()["services"]["tuner"]
    (published,) = (port.rsplit(":", 1)[0] for port in tuner["ports"])
    (script,) = (word for word in tuner["command"] if "tuner up" in word)
    assert f'echo "dashboard  http://{published}"' in script


def test_no_secret_stands_in_a_file() -> None:
    for path in text_files():
        assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", path.read_text()), f"password in {path}"
    for service in compose()["services"].values():
        for name in service.get("environment", {}):
            assert not SECRET.search(name) or name.endswith("_FILE"), name
    for _, template in pod_templates():
        for container in containers(template):
            for variable in container.get("env", []):
                if SECRET.search(variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], variable["name"]
    assert not [doc for doc in manifests() if doc["kind"] == "Secret"]


def test_env_example_lists_what_compose_reads_with_the_same_defaults() -> None:
    lines = (DEPLOYMENTS / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    text = "".join(path.read_text() for path in DEPLOYMENTS.glob("compose*.yaml"))
    used = dict(re.findall(r"(?<!\$)\$\{(\w+):-([^}]*)\}", text))
    assert used == example


def test_services_are_bounded_probed_and_unprivileged() -> None:
    for name, service in compose()["services"].items():
        assert "no-new-privileges:true" in service["security_opt"]
        if name != "demo-model":
            assert "memory" in service["deploy"]["resources"]["limits"]
            assert service["healthcheck"]["test"][0] == "CMD"
    for _, template in pod_templates():
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in containers(template):
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]["limits"]) == {"cpu", "memory"}


# Importing Ray Serve under a newer pydantic.
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")
def test_serve_application_takes_exactly_one_dict() -> None:
    import importlib
    import inspect

    config = yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    module, name = application["import_path"].split(":")
    builder = getattr(importlib.import_module(module), name)
    assert len(inspect.signature(builder).parameters) == 1
    assert isinstance(application["args"], dict)


def test_sglang_posts_to_the_service_that_kuberay_makes() -> None:
    ray_service = manifest("RayService")
    port = yaml.safe_load(ray_service["spec"]["serveConfigV2"])["http_options"]["port"]
    env = manifest("Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    values = {variable["name"]: variable.get("value") for variable in env}
    assert (
        values["POD_ATTN_TUNER_URL"] == f"http://{ray_service['metadata']['name']}-serve-svc:{port}"
    )


def test_network_policies_name_labels_that_pods_carry() -> None:
    labels = {item for _, t in pod_templates() for item in t["metadata"]["labels"].items()}
    theirs = {
        ("app.kubernetes.io/name", "kuberay-operator"),
        ("pod-attention/sglang-client", "true"),
    }
    for policy in (doc for doc in manifests() if doc["kind"] == "NetworkPolicy"):
        assert set(policy["spec"]["podSelector"].get("matchLabels", {}).items()) <= labels
        for rule in policy["spec"].get("ingress", []):
            for peer in rule["from"]:
                assert set(peer["podSelector"]["matchLabels"].items()) <= labels | theirs
