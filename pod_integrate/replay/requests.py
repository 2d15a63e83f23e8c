"""Request logs as they were published, one request after the other: no file is read whole.

Azure CSV     TIMESTAMP, ContextTokens, GeneratedTokens (github.com/Azure/AzurePublicDataset)
Mooncake JSONL  timestamp in ms, input_length, output_length, hash_ids of 512-token blocks
arXiv CSV     num_prefill_tokens, num_decode_tokens: lengths only (POD-Attention's artifact)
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from pod_integrate.errors import TraceError

# Tokens of one of Mooncake's prefix blocks.
BLOCK_TOKENS = 512
_AZURE = frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"})
_ARXIV = frozenset({"num_prefill_tokens", "num_decode_tokens"})
# How a file of Parquet begins, as those of a tuner's archive do.
_PARQUET = b"PAR1"
# Of a line: no record needs as much, and a file without line ends must not fill the memory.
_MOST_CHARACTERS = 1 << 20
# Of a prompt or an answer: no model has such a context.
_MOST_TOKENS = 1 << 24


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One request: seconds after the start, prompt and answer tokens, shared prefix blocks.

    blocks  ids of shared 512-token prompt blocks (Mooncake's hash_ids); equal ids mean equal text
    """

    at: float
    prompt_tokens: int
    answer_tokens: int
    blocks: tuple[int, ...] = ()


def read(path: Path) -> Iterator[Request]:
    """Requests of a log in its order; `at` is the log's own time, 0 where it has none.

    Raises TraceError that names the line that does not fit, and for a file without a request.
    """
    found = False
    try:
        _require_file(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = file.read(1)
            file.seek(0)
            lines = _lines(file, path)
            for request in _jsonl(lines, path) if head == "{" else _csv(lines, path):
                found = True
                yield request
    except OSError as error:
        raise TraceError(f"trace file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TraceError(
            f"trace file {path} is no text: {error}; unpack it first where it is compressed"
        ) from error
    if not found:
        raise TraceError(f"trace file {path} holds no request")


def is_recorded(path: Path) -> bool:
    """Whether `path` is a file of the archive, or a folder of such files.

    Raises TraceError for what cannot be read, and for a folder without one.
    """
    try:
        if path.is_dir():
            if not list(path.glob("*.parquet")):
                raise TraceError(f"{path} holds no *.parquet file of a tuner's archive")
            return True
        _require_file(path)
        with path.open("rb") as file:
            return file.read(len(_PARQUET)) == _PARQUET
    except OSError as error:
        raise TraceError(f"trace file {path} cannot be read: {error.strerror}") from error


def _require_file(path: Path) -> None:
    # What a file holds is looked at before it is read: a pipe gives its start once, or never.
    if not stat.S_ISREG(path.stat().st_mode):
        raise TraceError(f"{path} is no regular file; write the log to one first")


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    line = 0
    while text := file.readline(_MOST_CHARACTERS):
        line += 1
        if len(text) == _MOST_CHARACTERS:
            raise TraceError(f"{path}:{line}: longer than {_MOST_CHARACTERS} characters")
        yield text


def _csv(file: Iterable[str], path: Path) -> Iterator[Request]:
    reader = csv.DictReader(file)
    try:
        columns = set(reader.fieldnames or ())
        for row in reader:
            yield _checked(_row(row, columns, path), path, reader.line_num)
    except csv.Error as error:
        raise TraceError(f"{path}:{reader.line_num}: {error}") from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{path}:{reader.line_num}: {error}") from error


def _row(row: dict[str, str], columns: set[str], path: Path) -> Request:
    if _AZURE <= columns:
        _require_cells(row, _AZURE)
        # Seven fractional digits in the published file; datetime takes six.
        at = datetime.datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
        return Request(at, int(row["ContextTokens"]), int(row["GeneratedTokens"]))
    if _ARXIV <= columns:
        _require_cells(row, _ARXIV)
        prompt, answer = float(row["num_prefill_tokens"]), float(row["num_decode_tokens"])
        return Request(0.0, round(prompt), round(answer))
    raise TraceError(f"{path}: unknown columns {sorted(columns)}; expected the Azure or arXiv CSV")


def _require_cells(row: dict[str, str], columns: frozenset[str]) -> None:
    # The cells that a line lacks are None.
    missing = sorted(name for name in columns if row[name] is None)
    if missing:
        raise ValueError(f"no {', '.join(missing)}: the line is cut")


def _jsonl(file: Iterable[str], path: Path) -> Iterator[Request]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            request = Request(
                float(row["timestamp"]) / 1000.0,
                int(row["input_length"]),
                int(row["output_length"]),
                tuple(int(block) for block in row.get("hash_ids", ())),
            )
        except (
            *(AttributeError, KeyError, TypeError, ValueError), OverflowError, RecursionError
        ) as error:  # fmt: skip
            raise TraceError(f"{path}:{line}: not a Mooncake record: {error!r}") from error
        yield _checked(request, path, line)


def _checked(request: Request, path: Path, line: int) -> Request:
    for name, tokens in (("prompt", request.prompt_tokens), ("answer", request.answer_tokens)):
        if not 0 <= tokens <= _MOST_TOKENS:
            raise TraceError(
                f"{path}:{line}: {name} of {tokens} tokens; expected 0 to {_MOST_TOKENS}"
            )
    return request
