"""The commands that give orders say in a sentence what is wrong with names, tokens and buckets."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import pytest
from api_support import Served
from support import command
from test_table_import import OTHER, order, table
from tuner_support import kinds, message, overview


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """As support's, of an order and on one line."""
    code, text = command.said(capsys, "tuner", *arguments)
    return code, " ".join(text.split())


def named(monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, login)


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name_orders_by_number(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:  # fmt: skip
    def nameless() -> str:
        raise error("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert said(capsys, "pause", "--url", served.url)[0] == 0
    assert overview(served.tuner)["decisions"][0]["who"] == f"uid-{os.getuid()}"


@pytest.mark.parametrize(
    ("login", "who"),
    [("jos\u00e9", "jose"), ("\u5f20", f"uid-{os.getuid()}"), ("a\udce9b", "ab")],
)
def test_a_login_name_is_spelled_in_ascii(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    login: str, who: str,
) -> None:  # fmt: skip
    named(monkeypatch, login)
    assert said(capsys, "pause", "--url", served.url)[0] == 0
    assert overview(served.tuner)["decisions"][0]["who"] == who


@pytest.mark.parametrize("who", ["jos\u00e9", "a\udce9b", "a\nb", "a" * 129])
def test_a_name_that_cannot_be_filed_is_refused_with_the_rule(
    capsys: pytest.CaptureFixture[str], who: str
) -> None:
    code, text = said(capsys, "pause", "--who", who)
    assert code == 2 and "--who" in text and "printable ASCII" in text


def test_an_argument_that_is_no_text_is_refused(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(capsys, "pause", "--url", served.url, "--who", "ada", "--why", "a\udce9b")
    assert code == 2 and "UTF-8" in text


def test_a_token_that_no_header_can_hold_is_refused_unseen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POD_ATTN_TUNER_TOKEN", "secr\u00e9t")
    code, text = said(capsys, "pause", "--who", "ada")
    assert code == 2 and "POD_ATTN_TUNER_TOKEN" in text and "ASCII" in text and "secr" not in text
    file = tmp_path / "token"
    file.write_text("two\nlines", encoding="utf-8")
    code, text = said(capsys, "pause", "--who", "ada", "--token-file", str(file))
    assert code == 2 and "ASCII" in text and "lines" not in text


def test_a_bucket_that_only_a_table_lists_is_rolled_back(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    served.core._executor.submit(served.tuner.ingest, message()).result()
    served.core._executor.submit(served.tuner.import_table, order(table())).result()
    at = ("--url", served.url, "--who", "ada")
    code, text = said(capsys, "rollback", OTHER, *at)
    assert code == 0 and "the default is in force" in text
    assert "rollback" in kinds(served.tuner)
    code, text = said(capsys, "rollback", "d1@64", *at)
    assert code == 2 and "--scope" in text and "table show" in text
