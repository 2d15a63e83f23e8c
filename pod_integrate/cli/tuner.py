"""`pod-attn tuner ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pod_integrate.cli.orders import add_orders
from pod_integrate.cli.paths import read_token, writable_folder
from pod_integrate.cli.terminal import console

app = typer.Typer(no_args_is_help=True, help="The tuning service: `up` runs it, others are orders.")
add_orders(app)


@app.callback()
def group() -> None:
    """The tuning service."""


@app.command()
def up(
    host: Annotated[
        str | None, typer.Option(help="Address to bind; other than loopback needs a token.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="HTTP port.")] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the SQLite database and the trace archive (Parquet)."),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL, e.g. postgresql+psycopg://... instead of SQLite."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="File with the bearer token for writes."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=64, help="Measuring workers on this machine.")
    ] = None,
    ray: Annotated[
        bool, typer.Option(help="Host it on Ray; --no-ray runs one plain process.")
    ] = True,
) -> None:
    """Run the tuner and its dashboard in the foreground; Ctrl-C stops it cleanly.

    Every option may come from the environment instead, as POD_TUNER_HOST, POD_TUNER_PORT and so
    on. Servers join with `POD_ATTN_TUNER_URL=http://127.0.0.1:8421`. What was acknowledged
    survives a kill at any moment: start it again on the same database.
    """
    from tuner.host.service import run_tuner
    from tuner.settings import load

    chosen: dict[str, Any] = {
        "host": host,
        "port": port,
        "database_url": database_url,
        "workers": workers,
    }
    if state_dir is not None:
        chosen["data_dir"] = writable_folder(state_dir.resolve(), mode=0o700)
    if token_file is not None:
        chosen["token"] = read_token(token_file)
    settings = load(**{name: value for name, value in chosen.items() if value is not None})
    screen = console()
    run_tuner(
        settings,
        ray=ray,
        on_phase=lambda phase, detail: screen.print(f"{phase}  {detail}", soft_wrap=True),
    )
