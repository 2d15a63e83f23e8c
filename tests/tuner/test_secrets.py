"""No secret in logs, errors, pages, settings' text or process titles, whichever setting had it."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from tuner_support import BUILD, DEVICE, GEOMETRY

from pod_integrate import settings as serving
from pod_integrate.cli import doctor
from pod_integrate.errors import SettingsError
from pod_integrate.live.exchange import Channel, Exchange
from pod_integrate.live.registry import ActiveTable
from pod_integrate.redact import redact
from tuner.host import service
from tuner.settings import TunerSettings, load
from tuner.store import storage
from tuner.store.database import make_engine
from tuner.store.storage import Store

SECRET = "hunter2-very-secret"
URL = f"postgresql+psycopg://tuner:{SECRET}@127.0.0.1:1/pod?sslpassword={SECRET}"


@pytest.mark.parametrize(
    "text",
    [
        URL,
        f"http://user:{SECRET}@host:80/path",
        f"http://{SECRET}@host",
        f"http://u:{SECRET}@{SECRET}@host/",
        f"host=db password={SECRET} user=x",
        f"GET /?token={SECRET}&a=1",
        f"Authorization: Bearer {SECRET}",
        f"plain {SECRET}",
    ],
)
def test_redacted_text_has_no_secret_and_keeps_the_rest(text: str) -> None:
    assert SECRET not in redact(text, SECRET)
    if "plain" not in text:
        assert SECRET not in redact(text)
    assert redact("nothing to hide at http://host:80/a") == "nothing to hide at http://host:80/a"


def test_a_tuner_started_with_secrets_prints_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("POD_TUNER_DATABASE_URL", URL)
    monkeypatch.setenv("POD_TUNER_TOKEN", SECRET)
    monkeypatch.setenv("POD_TUNER_DATA_DIR", str(tmp_path))
    # PostgreSQL by its URL, SQLite below: the start is the same.
    monkeypatch.setattr(storage, "make_engine", lambda _url: make_engine("sqlite://"))
    settings = load(port=0, workers=0)
    said: list[str] = [repr(settings), str(settings)]
    stop = threading.Event()

    def on_phase(phase: str, detail: str) -> None:
        said.append(f"{phase} {detail}")
        if phase == "ready":
            with httpx.Client(base_url=detail, trust_env=False) as client:
                paths = ("/healthz", "/v1/overview", "/metrics", "/openapi.json", "/")
                said.extend(client.get(path).text for path in paths)
                said.append(client.post("/v1/traces", content=b"x").text)
            stop.set()

    service.run_tuner(settings, ray=False, on_phase=on_phase, stop=stop)
    printed = capsys.readouterr()
    everything = "\n".join([*said, caplog.text, printed.out, printed.err])
    assert "storage postgresql" in everything and "ready http" in everything
    assert SECRET not in everything


@pytest.mark.parametrize(
    "url",
    [URL, URL.replace("postgresql+psycopg", "mysql"), f"::{SECRET}"],
)
def test_a_database_that_cannot_be_opened_hides_its_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as caught:
        Store(url)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert SECRET not in str(chain)
        chain = chain.__cause__


def test_malformed_settings_do_not_show_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_ATTN_TUNER_URL", f"ftp://user:{SECRET}@host")
    monkeypatch.setenv("POD_ATTN_TUNER_TOKEN", SECRET)
    with pytest.raises(SettingsError) as caught:
        serving.load()
    assert SECRET not in f"{caught.value} {caught.value.__cause__}" and "ftp://" in str(
        caught.value
    )
    for bad in ({"trials": "many"}, {"host": "0.0.0.0"}):
        with pytest.raises(SettingsError) as refused:
            load(database_url=URL, **bad)
        assert SECRET not in f"{refused.value} {refused.value.__cause__}"


def test_a_server_that_cannot_reach_its_tuner_logs_no_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"http://user:{SECRET}@127.0.0.1:9"
    monkeypatch.setenv("POD_ATTN_TUNER_URL", url)
    monkeypatch.setenv("POD_ATTN_TUNER_TOKEN", SECRET)
    assert SECRET not in repr(serving.load())

    def answers(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"]
        raise httpx.ConnectError(f"cannot reach {url} as Bearer {SECRET}")

    exchange = Exchange(url, server="s", token=SECRET, transport=httpx.MockTransport(answers))
    exchange.add(Channel(ActiveTable(GEOMETRY, DEVICE, BUILD)))
    exchange.run_round()
    assert exchange.counts["table_unreachable"] == 1
    assert SECRET not in str(doctor._tuner())
    assert SECRET not in caplog.text and "***" in caplog.text


@pytest.mark.parametrize("setting", [{"database_url": URL}, {"token": SECRET}])
def test_a_secret_in_the_process_title_stops_the_start(
    setting: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["pod-attn", "tuner", "up", *setting.values()])
    with pytest.raises(SettingsError, match="POD_TUNER_") as caught:
        service.run_tuner(TunerSettings(data_dir=tmp_path, port=0, **setting), ray=False)
    assert SECRET not in str(caught.value)
    monkeypatch.setattr(sys, "argv", ["pod-attn", "tuner", "up"])
    service.require_no_secret_in_arguments(TunerSettings(data_dir=tmp_path, **setting))


def test_database_url_that_is_none_is_named_without_its_text() -> None:
    for text in (SECRET, f"postgresql://user:{SECRET}@host:port/x"):
        with pytest.raises(SettingsError, match="DATABASE_URL.*no SQLAlchemy URL") as refused:
            load(database_url=text)
        assert SECRET not in str(refused.value)
