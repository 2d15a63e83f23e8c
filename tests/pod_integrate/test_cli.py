"""The command line: errors end with their message and a code, doctor names what is missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pod_integrate.cli import doctor
from pod_integrate.terms.keys import DeviceKey


def _pod_attn(
    *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "pod_integrate.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


def test_doctor_reports_every_part_as_json() -> None:
    done = _pod_attn("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert {"machine", "accelerator", "kernel", "build", "SGLang plug-in", "tuner"} <= set(findings)
    assert findings["kernel"]["status"] == "ok"
    assert done.returncode == int(any(f["status"] == "missing" for f in findings.values()))


def test_malformed_setting_is_a_missing_line_with_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POD_ATTN_TRACE_SAMPLE", "lots")
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["settings"].status == "missing"
    assert "POD_ATTN_TRACE_SAMPLE" in findings["settings"].value


def test_doctor_names_the_compiler_when_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("POD_ATTN_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = next(f for f in doctor.examine() if f.name == "build")
    assert finding.status == "missing" and "CXX" in finding.value + finding.remedy


def test_doctor_tries_to_write_where_builds_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setenv("POD_ATTN_CACHE_DIR", str(folder / "native"))
    finding = next(f for f in doctor.examine() if f.name == "cache")
    assert finding.status == "ok" and str(folder) in finding.value
    assert list((folder / "native").iterdir()) == []
    monkeypatch.setenv("POD_ATTN_CACHE_DIR", str(folder / "file" / "native"))
    (folder / "file").write_text("in the way")
    finding = next(f for f in doctor.examine() if f.name == "cache")
    assert finding.status == "missing" and "set POD_ATTN_CACHE_DIR" in finding.value


def test_unreachable_tuner_is_a_note_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_ATTN_TUNER_URL", "http://127.0.0.1:9")
    finding = next(f for f in doctor.examine() if f.name == "tuner")
    assert finding.status == "note" and finding.remedy == "pod-attn tuner up"


def test_user_mistake_ends_with_its_message_and_code_two(tmp_path: Path) -> None:
    done = _pod_attn("demo-model", str(tmp_path / "m"), "--q-heads", "3", "--kv-heads", "2")
    assert done.returncode == 2
    assert "ShapeError" in done.stderr and "Traceback" not in done.stderr


def test_tuner_beyond_loopback_needs_a_token(tmp_path: Path) -> None:
    done = _pod_attn("tuner", "up", "--host", "0.0.0.0", "--state-dir", str(tmp_path))
    assert done.returncode == 2
    assert "POD_TUNER_TOKEN" in done.stderr


def test_build_says_where_the_kernel_is() -> None:
    done = _pod_attn("build")
    assert done.returncode == 0, done.stderr
    assert "ready at" in done.stdout


def test_doctor_says_what_a_missing_nvcc_is_needed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDACXX", "no-such-nvcc")
    finding = next(f for f in doctor.examine() if f.name == "nvcc")
    assert finding.status == "note" and "CUDACXX=no-such-nvcc" in finding.value


def test_doctor_names_the_variant_that_a_gpu_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hopper = DeviceKey("nvidia-h100-80gb-hbm3", "sm90", 132)
    monkeypatch.setattr(doctor, "_gpu_keys", lambda: [hopper, hopper])
    monkeypatch.setenv("POD_ATTN_CACHE_DIR", str(tmp_path))
    findings = {f.name: f for f in doctor.examine()}
    assert findings["accelerator"].value.count("nvidia-h100-80gb-hbm3 sm90, 132 SMs") == 2
    assert findings["GPU kernel"].value.count("bf16-d128-") == 1
    if findings["nvcc"].status == "ok":
        assert findings["GPU kernel"].remedy == "pod-attn build does it now"
    monkeypatch.setenv("CUDACXX", "no-such-nvcc")
    # No library and nothing to compile one with: the first call on this GPU would fail.
    assert next(f for f in doctor.examine() if f.name == "GPU kernel").status == "missing"


def test_build_for_a_gpu_without_naming_one_ends_with_the_choices() -> None:
    done = _pod_attn("build", "--arch", "sm_75")
    assert done.returncode == 2
    assert "known are sm_80" in done.stderr
