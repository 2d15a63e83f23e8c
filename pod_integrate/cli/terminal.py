"""What people read in a terminal: text stays as it is, styles come apart from it, numbers whole.

Rich reads `[...]` in a string as markup and `:name:` as a picture; in ours they are extras of pip,
type names, paths and addresses. Every console of ours is therefore made here, with both off, and
what has a style is built with `styled`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import IO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Cell = str | Text
# Room in which every table is as wide as it wants to be.
_ROOMY = 10_000


def console(
    *, stderr: bool = False, file: IO[str] | None = None, width: int | None = None,
    force_terminal: bool | None = None,
) -> Console:  # fmt: skip
    """A console that prints strings as they are."""
    return Console(
        stderr=stderr,
        file=file,
        width=width,
        force_terminal=force_terminal,
        markup=False,
        emoji=False,
        highlight=False,
    )


def styled(*parts: str | tuple[str, str]) -> Text:
    """One text of plain strings and (string, style) pairs."""
    return Text.assemble(*parts)


@dataclasses.dataclass
class Figures:
    """A table whose cells are never cut: where it does not fit, each row becomes lines.

    columns  headings; the first column names the row
    words    columns of words, aligned left as the first one is; the others hold numbers
    """

    columns: Sequence[str]
    rows: list[Sequence[Cell]] = dataclasses.field(default_factory=list)
    title: str = ""
    words: frozenset[str] = frozenset()

    def add_row(self, *cells: Cell) -> None:
        """One cell for each column."""
        self.rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table()
        wanted = Measurement.get(console, options.update(max_width=_ROOMY), table).maximum
        if wanted <= options.max_width:
            yield table
        else:
            yield from self._lines(options.max_width)

    def _table(self) -> Table:
        table = Table(
            box=None,
            title=self.title or None,
            title_style="bold",
            header_style="dim",
            show_header=any(self.columns),
            padding=(0, 2, 0, 0),
        )
        for index, name in enumerate(self.columns):
            left = index == 0 or name in self.words
            table.add_column(name, justify="left" if left else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def _lines(self, width: int) -> Iterator[Text]:
        if self.title:
            yield Text(self.title, style="bold")
        for name, *cells in self.rows:
            yield styled(name if isinstance(name, str) else name.plain)
            line = Text()
            for heading, cell in zip(self.columns[1:], cells, strict=True):
                pair = styled(f"  {heading} " if heading else "  ").append_text(
                    Text(cell) if isinstance(cell, str) else cell
                )
                if line and line.cell_len + pair.cell_len > width:
                    yield line
                    line = Text()
                line.append_text(pair)
            yield line
