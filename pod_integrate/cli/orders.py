"""`pod-attn tuner pause | kill | resume | promote | pin | unpin | rollback`: a person's orders."""

from __future__ import annotations

import getpass
import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any

import typer

from pod_integrate.cli.paths import read_token
from pod_integrate.cli.terminal import console
from pod_integrate.errors import SettingsError

_URL = Annotated[
    str, typer.Option(envvar="POD_ATTN_TUNER_URL", help="Base URL of the tuner.", show_default=True)
]
TokenFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="File with the bearer token; else "
                 "POD_ATTN_TUNER_TOKEN or POD_TUNER_TOKEN."),
]  # fmt: skip
Who = Annotated[str | None, typer.Option(help="Who decides; default the user's login name.")]
Why = Annotated[str, typer.Option(help="What the decision says.")]
_Server = Annotated[
    str, typer.Argument(help="Id of a server or worker, as the page shows it; `*`: all of them.")
]
_Bucket = Annotated[str, typer.Argument(help="The bucket, e.g. p1k@8k+d64@4k.")]
_Scope = Annotated[
    str | None,
    typer.Option(help="`geometry|device|build`, where several have the bucket, as the error says."),
]
_HERE = "http://127.0.0.1:8421"
_NAMES = ("geometry", "device", "build")


def add_orders(app: typer.Typer) -> None:
    """Add the commands to `pod-attn tuner`."""
    for command in (pause, kill, resume, promote, pin, unpin, rollback):
        app.command()(command)


def pause(
    server: _Server = "*", url: _URL = _HERE, token_file: TokenFile = None, who: Who = None,
    why: Why = "",
) -> None:  # fmt: skip
    """Stop experiments and replays, on one server or all. Tables stay in force."""
    send(url, token_file, "pause", {"server": server}, who, why)


def kill(url: _URL = _HERE, token_file: TokenFile = None, who: Who = None, why: Why = "") -> None:
    """Run the default everywhere, and measure nothing, until `resume`.

    Servers follow with their next poll; captured decode steps keep the tiles of their capture. A
    server that starts away from the tuner has the table of its POD_ATTN_TABLE.
    """
    send(url, token_file, "kill", {}, who, why)


def resume(
    server: _Server = "*", url: _URL = _HERE, token_file: TokenFile = None, who: Who = None,
    why: Why = "",
) -> None:  # fmt: skip
    """End a pause; `*` ends all, and what `kill` did."""
    send(url, token_file, "resume", {"server": server}, who, why)


def promote(
    bucket: _Bucket,
    trial: Annotated[int, typer.Argument(min=0, help="Number of the trial.")],
    scope: _Scope = None, url: _URL = _HERE, token_file: TokenFile = None, who: Who = None,
    why: Why = "",
) -> None:  # fmt: skip
    """Put a trial in force. It is watched, and rolled back when it is slower than the default."""
    body = _key(url, bucket, scope) | {"trial": trial}
    send(url, token_file, "promote", body, who, why)


def pin(
    bucket: _Bucket, scope: _Scope = None, url: _URL = _HERE, token_file: TokenFile = None,
    who: Who = None, why: Why = "",
) -> None:  # fmt: skip
    """Keep what is in force for a bucket: nothing is measured or changed there."""
    send(url, token_file, "pin", _key(url, bucket, scope) | {"pinned": True}, who, why)


def unpin(
    bucket: _Bucket, scope: _Scope = None, url: _URL = _HERE, token_file: TokenFile = None,
    who: Who = None, why: Why = "",
) -> None:  # fmt: skip
    """Tune a bucket again."""
    send(url, token_file, "pin", _key(url, bucket, scope) | {"pinned": False}, who, why)


def rollback(
    bucket: _Bucket, scope: _Scope = None, url: _URL = _HERE, token_file: TokenFile = None,
    who: Who = None, why: Why = "",
) -> None:  # fmt: skip
    """Put the default in force for a bucket."""
    send(url, token_file, "rollback", _key(url, bucket, scope), who, why)


def send(
    url: str, token_file: Path | None, order: str, body: dict[str, Any], who: str | None, why: str
) -> None:
    """Post an order to a tuner and print what it did; raises SettingsError where it refused."""
    from pod_integrate.cli import asking

    token = _token(token_file)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    person = {"who": _person(who), "why": why}
    sent = {"json": body | person, "headers": headers}
    answer = asking.document(asking.Done, "POST", url, f"/v1/{order}", **sent)
    console().print(answer.done, soft_wrap=True, markup=False)


def _token(file: Path | None) -> str:
    """The bearer token of a file, else of the environment; empty: none."""
    names = ("POD_ATTN_TUNER_TOKEN", "POD_TUNER_TOKEN")
    source = next((name for name in names if os.environ.get(name)), "")
    token = os.environ.get(source, "")
    if file is not None:
        source, token = str(file), read_token(file)
    if token and not (token.isascii() and token.isprintable()):
        raise SettingsError(
            f"the token of {source} has characters other than printable ASCII, which no HTTP "
            "header can hold; give the tuner and its clients another one"
        )
    return token


def _person(who: str | None) -> str:
    """The name to file an order with: `who`, else the login name, spelled in ASCII."""
    from pod_integrate.terms import wire

    if who:
        if len(who) > wire.MAX_KEY or not re.fullmatch(wire.KEY_PATTERN, who):
            raise SettingsError(
                f"--who {ascii(who)[:200]}: a name is at most {wire.MAX_KEY} characters of "
                "printable ASCII; spell it so"
            )
        return who
    try:
        login = getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        login = ""
    plain = unicodedata.normalize("NFKD", login).encode("ascii", "ignore").decode()
    name = "".join(filter(str.isprintable, plain)).strip()
    return name[: wire.MAX_KEY] or f"uid-{os.getuid()}"


def _key(url: str, bucket: str, scope: str | None) -> dict[str, Any]:
    """The bucket's full key: looked up where only one scope has it in its traffic or its table."""
    if scope is not None:
        parts = tuple(scope.split("|"))
        if len(parts) != len(_NAMES):
            raise SettingsError(f"--scope {scope!r} is not geometry|device|build")
        return dict(zip(_NAMES, parts, strict=True)) | {"bucket": bucket}
    scopes = _scopes(url, bucket)
    if not scopes:
        raise SettingsError(
            f"the tuner has no bucket {bucket!r} in its traffic or its tables; its page lists "
            "the former, `pod-attn table show` the latter, and --scope names one that is in neither"
        )
    if len(scopes) > 1:
        found = ", ".join(repr("|".join(parts)) for parts in sorted(scopes))
        raise SettingsError(f"{bucket} is in several scopes: choose one with --scope: {found}")
    return dict(zip(_NAMES, scopes.pop(), strict=True)) | {"bucket": bucket}


def _scopes(url: str, bucket: str) -> set[tuple[str, ...]]:
    """Where a tuner has a bucket; an imported table lists buckets that had no traffic there."""
    from pod_integrate.cli import asking

    overview = asking.document(asking.Overview, "GET", url, "/v1/overview")
    found = {_scope(row) for row in overview.buckets if row.bucket == bucket}
    for row in overview.tables:
        scope = dict(zip(_NAMES, _scope(row), strict=True))
        table = asking.document(asking.Buckets, "GET", url, "/v1/table", params=scope)
        if bucket in table.entries:
            found.add(_scope(row))
    return found


def _scope(row: object) -> tuple[str, ...]:
    return tuple(getattr(row, name) for name in _NAMES)
