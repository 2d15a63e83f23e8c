"""Claims about the repository itself: names, documents and numbers that must agree."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.order import LONG, TESTS, long_first

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_readme_numbers_are_drawn_from_the_results() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "readme_table.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_headline_says_how_and_where_it_was_measured() -> None:
    headline = json.loads((ROOT / "benchmarks" / "results" / "headline.json").read_text())
    for name, entry in headline.items():
        assert set(entry) == {"value", "unit", "command", "machine", "date"}, name
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}.*", entry["date"]), name


def test_readme_shows_both_commands_and_existing_files_only() -> None:
    assert "make demo" in README and "make test" in README
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in link:
            assert (ROOT / link).exists(), link


@pytest.mark.parametrize("ignored", ["TRACE=log.csv", "DEMO_FLAGS=--once"])
def test_demo_of_the_trained_model_refuses_what_it_would_ignore(ignored: str) -> None:
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}

    def demo(*told: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "-n", "demo", *told], cwd=ROOT, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip

    refused = demo("MODEL=smollm2", ignored)
    assert refused.returncode and "leave TRACE and DEMO_FLAGS out" in refused.stderr
    assert demo("MODEL=smollm2").stdout.rstrip().endswith("pod-attn answers")
    assert ignored.partition("=")[2] in demo(ignored).stdout


def test_every_setting_is_documented() -> None:
    from pod_integrate.settings import Settings
    from tuner.settings import TunerSettings

    reference = (ROOT / "docs" / "settings.md").read_text()
    for prefix, model in (("POD_ATTN_", Settings), ("POD_TUNER_", TunerSettings)):
        for field in model.model_fields:
            assert f"`{prefix}{field.upper()}`" in reference, field
    known = {
        f"{prefix}{field.upper()}"
        for prefix, model in (("POD_ATTN_", Settings), ("POD_TUNER_", TunerSettings))
        for field in model.model_fields
    }
    mentioned = set(re.findall(r"`(POD_(?:ATTN|TUNER)_[A-Z_]+)`", reference))
    assert mentioned <= known


# What stands in the reference where the default is no plain value.
DEFAULTS_IN_WORDS = {
    "POD_ATTN_THREADS": "torch's",
    "POD_ATTN_ISA": "the best",
    "POD_ATTN_CACHE_DIR": "user cache",
    "POD_TUNER_DATA_DIR": "user data",
    "POD_TUNER_DATABASE_URL": "SQLite",
    "POD_TUNER_TRACE_DIR": "in the data dir",
    "POD_TUNER_ARCHIVE_BYTES": "1 GiB",
}


def _printed_default(name: str, default: object) -> str:
    if name in DEFAULTS_IN_WORDS:
        return DEFAULTS_IN_WORDS[name]
    secret = getattr(default, "get_secret_value", lambda: default)()
    return "-" if secret in (None, "") else f"{secret:g}" if _is_number(secret) else str(secret)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_setting_is_documented_with_its_default() -> None:
    from pod_integrate.settings import Settings
    from tuner.settings import TunerSettings

    rows = re.findall(
        r"^\| `(POD_\w+)` \| (.+?) \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE
    )
    written = {name: default.strip("`") for name, default in rows}
    assert len(rows) == len(written)
    assert written == {
        name: _printed_default(name, field.default)
        for prefix, model in (("POD_ATTN_", Settings), ("POD_TUNER_", TunerSettings))
        for field_name, field in model.model_fields.items()
        for name in [f"{prefix}{field_name.upper()}"]
    }
    # The words that stand for a number say that number.
    assert TunerSettings.model_fields["archive_bytes"].default == 1 << 30


def test_every_public_name_has_a_docstring_and_is_in_the_reference() -> None:
    import pod_integrate

    reference = (ROOT / "docs" / "api.md").read_text()
    for name in pod_integrate.__all__:
        assert getattr(pod_integrate, name).__doc__, name
        assert f"`{name}" in reference, name


def test_constraints_hold_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; [^/@]+)?", line), line


def test_kernels_folder_is_never_a_python_package() -> None:
    assert not list((ROOT / "kernels").rglob("*.py"))
    code = (
        "import importlib.util, sys; sys.path.insert(0, sys.argv[1]);"
        "spec = importlib.util.find_spec('kernels');"
        "assert spec is None or spec.origin is None or 'site-packages' in spec.origin, spec;"
        "import pod_integrate.op, tuner"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT)], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "command", ["demo", "doctor", "build", "explain", "tuner up", "bench", "demo-model"]
)
def test_every_command_has_help_that_says_more_than_its_name(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pod_integrate.cli", *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert len(done.stdout) > 400


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_import_packages_are_the_two_that_are_promised() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        build = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]
    # What else the wheel carries lies inside of them: it adds no name to import.
    assert set(build["only-include"]) - set(build["sources"]) == {"pod_integrate", "tuner"}
    for place in build["sources"].values():
        assert place.startswith("pod_integrate/"), place
    roots = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert roots == {"pod_integrate", "tuner"}


def test_test_files_have_names_of_their_own() -> None:
    # Test folders are no packages: pytest refuses to collect a second file of one name.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert [name for name in sorted(set(names)) if names.count(name) > 1] == []


def test_files_that_start_first_are_there_and_the_others_keep_their_order() -> None:
    assert [name for name in LONG if not (TESTS / name).is_file()] == []
    others = [TESTS / "test_walks.py", TESTS / "test_numbers.py"]
    long = [TESTS / name for name in LONG]
    assert long_first([*others, *reversed(long)], lambda file: file) == [*long, *others]
