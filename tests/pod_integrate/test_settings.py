"""POD_ATTN_* variables are typed, and a malformed one stops start-up by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pod_integrate import settings
from pod_integrate.devices.cpu.processor import isa, num_threads
from pod_integrate.errors import SettingsError
from tuner.settings import TunerSettings
from tuner.settings import load as tuner_settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(f"POD_ATTN_{name.upper()}", raising=False)


def test_nothing_is_required() -> None:
    chosen = settings.load()
    assert chosen.tuner_url is None and chosen.table is None and chosen.threads is None


def test_values_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_ATTN_TUNER_URL", "http://127.0.0.1:8600/")
    monkeypatch.setenv("POD_ATTN_TABLE", "/tmp/table.json")
    monkeypatch.setenv("POD_ATTN_THREADS", "3")
    monkeypatch.setenv("POD_ATTN_TRACE_SAMPLE", "0.5")
    chosen = settings.load()
    assert chosen.tuner_url == "http://127.0.0.1:8600"
    assert chosen.table == Path("/tmp/table.json")
    assert (chosen.threads, chosen.trace_sample) == (3, 0.5)
    assert num_threads() == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TUNER_URL", "ftp://x"),
        ("TRACE_SAMPLE", "1.5"),
        ("TRACE_SAMPLE", "nan"),
        ("THREADS", "0"),
        ("THREADS", "two"),
        ("ISA", "sse9"),
        ("POLL_SECONDS", "0"),
        ("POLL_SECONDS", "inf"),
    ],
)
def test_malformed_value_names_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"POD_ATTN_{name}", value)
    with pytest.raises(SettingsError, match=f"POD_ATTN_{name}='{value}'"):
        settings.load()


def test_token_never_appears_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_ATTN_TUNER_TOKEN", "very-secret")
    assert "very-secret" not in repr(settings.load())


EVERY_VARIABLE = [
    *(f"{settings.PREFIX}{name}".upper() for name in settings.Settings.model_fields),
    *(f"POD_TUNER_{name}".upper() for name in TunerSettings.model_fields),
]


@pytest.mark.parametrize("variable", EVERY_VARIABLE)
def test_empty_variable_is_as_good_as_an_unset_one(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)

    def in_use() -> object:
        return settings.load(), tuner_settings(), num_threads(), isa()

    unset = in_use()
    monkeypatch.setenv(variable, "")
    assert in_use() == unset


@pytest.mark.parametrize("token", ["gehe\u00efm", "two words", "line\n", "\u0660\u0661"])
def test_a_token_that_no_header_carries_stops_tuner_and_server_unquoted(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, load in (
        ("POD_TUNER_TOKEN", tuner_settings),
        ("POD_ATTN_TUNER_TOKEN", settings.load),
    ):
        monkeypatch.setenv(name, token)
        with pytest.raises(SettingsError, match=f"{name}: .*visible ASCII") as refused:
            load()
        assert token not in str(refused.value)
        monkeypatch.delenv(name)
    monkeypatch.setenv("POD_TUNER_TOKEN", "0aZ~!")
    assert tuner_settings().token.get_secret_value() == "0aZ~!"
