"""`pod-attn table show | export | import | diff`: tables of tuned configs, in files and tuners."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pod_integrate.cli.orders import TokenFile, Who, Why, send
from pod_integrate.cli.paths import writable_file, write_whole
from pod_integrate.cli.terminal import Figures, console, styled

app = typer.Typer(
    no_args_is_help=True,
    help="Tables of tuned configs: look at them, compare them, carry them to other machines.\n\n"
    "A table lists for one attention geometry, device and kernel build which config is proven "
    "fastest in which bucket of batches, with the evidence. SOURCE is a file (one that `export` "
    "wrote, or a server's POD_ATTN_TABLE), the URL of a tuner, or `shipped`: what comes with the "
    "package. Where there are several tables, choose by --geometry, --device and --build: any part "
    "of the name that tells them apart.\n\n"
    "    pod-attn table show http://127.0.0.1:8421\n\n"
    "    pod-attn table export http://127.0.0.1:8421 h100.json\n\n"
    "    pod-attn table diff h100.json http://127.0.0.1:8421\n\n"
    "    pod-attn table import h100.json http://other:8421",
)

_Source = Annotated[str, typer.Argument(help="A file, a tuner as http://HOST:PORT, or `shipped`.")]
_Geometry = Annotated[str, typer.Option(help="Part of the table's geometry.")]
_Device = Annotated[str, typer.Option(help="Part of its device.")]
_Build = Annotated[str, typer.Option(help="Part of its kernel build.")]
_STYLES = {"+": "green", "-": "red", "~": "yellow"}


@app.callback()
def group() -> None:
    """Tables of tuned configs."""


@app.command()
def show(
    source: _Source, geometry: _Geometry = "", device: _Device = "", build: _Build = "",
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
) -> None:  # fmt: skip
    """Print a table: for each bucket the config and what it gained over the default.

    `at least` is the lower bound of the speed-up at the stated confidence, `steps` on how many
    distinct steps of real traffic it was proven, `how` whether they were replayed or live.
    """
    from pod_integrate.cli import tables

    table = tables.load(source, (geometry, device, build))
    if as_json:
        typer.echo(table.to_json().decode(), nl=False)
        return
    screen = console()
    screen.print(tables.heading(table), soft_wrap=True)
    figures = Figures(
        ["bucket", "config", "speed-up", "at least", "steps", "how", "measured"],
        words=frozenset({"config", "how", "measured"}),
    )
    for bucket, entry in table.rows():
        proof = entry.evidence
        figures.add_row(
            str(bucket), entry.config.short(), f"{proof.median_speedup:.3f}x",
            f"{proof.lower_bound:.3f}x", str(proof.steps), proof.method, proof.measured_at,
        )  # fmt: skip
    screen.print(figures)


@app.command("export")
def export(
    source: _Source,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="The file to write.")],
    geometry: _Geometry = "", device: _Device = "", build: _Build = "",
) -> None:  # fmt: skip
    """Write a table to a file, with a checksum that everything that reads it verifies.

    A server on the same device and kernel build starts tuned with `POD_ATTN_TABLE=FILE`, without
    any tuner; `import` gives the file to another tuner.
    """
    from pod_integrate.cli import tables

    writable_file(file)
    table = tables.load(source, (geometry, device, build))
    write_whole(file, table.to_json(checksum=True))
    console().print(f"{tables.heading(table)}\nwritten to {file}, {table.checksum}", soft_wrap=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Of `export`.")],
    url: Annotated[str, typer.Argument(help="The tuner, as http://HOST:PORT.")],
    token_file: TokenFile = None, who: Who = None, why: Why = "",
) -> None:  # fmt: skip
    """Put the configs of an exported file in force on a tuner, as a decision with your name.

    Servers of that geometry, device and build run them from their next poll on. The tuner measures
    them like promotions of its own and rolls back what is slower there. Pinned buckets, and configs
    that failed on this tuner, stay as they are. A file whose checksum is missing or wrong is
    refused whole.
    """
    from pod_integrate.cli import tables

    table = tables.of_file(file)
    screen = console()
    screen.print(tables.heading(table), soft_wrap=True)
    send(url, token_file, "table", {"table": tables.document(file)}, who, why)


@app.command()
def diff(
    old: _Source, new: _Source, geometry: _Geometry = "", device: _Device = "", build: _Build = "",
) -> None:  # fmt: skip
    """Say what changed from one table to another; exits with 1 when they list other configs.

    `+` a bucket that only NEW lists, `-` only OLD, `~` both with other configs. Evidence alone is
    no change. Tables of other geometries, devices or builds can be compared: the heading says so.
    """
    from pod_integrate.cli import tables

    which = (geometry, device, build)
    before, after = tables.load(old, which), tables.load(new, which)
    screen = console()
    screen.print(f"old  {tables.heading(before)}\nnew  {tables.heading(after)}", soft_wrap=True)
    changes = tables.changes(before, after)
    for sign, bucket, text in changes:
        screen.print(styled((sign, _STYLES[sign]), f" {bucket}  {text}"), soft_wrap=True)
    if changes:
        raise typer.Exit(1)
    screen.print("the same configs", soft_wrap=True)
