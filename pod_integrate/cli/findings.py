"""What `pod-attn doctor` found, and how it is printed."""

from __future__ import annotations

import json
from typing import Literal, NamedTuple

from rich.console import Console

from pod_integrate.cli.terminal import styled

Status = Literal["ok", "note", "missing"]
_COLORS = {"ok": "green", "note": "yellow", "missing": "red"}


class Finding(NamedTuple):
    """One line: what was looked at, what was found, and the remedy when it is not well."""

    name: str
    value: str
    status: Status = "ok"
    remedy: str = ""


def print_findings(console: Console, findings: list[Finding], *, as_json: bool) -> None:
    """Lines for people, or a JSON list of {name, value, status, remedy}.

    A line stays whole however narrow the terminal is.
    """
    if as_json:
        console.print_json(json.dumps([finding._asdict() for finding in findings]))
        return
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        status = (f"{finding.status:<8}", _COLORS[finding.status])
        line = styled(status, f" {finding.name:<{width}}  ", finding.value)
        # Nothing is wrapped here: a command or a path is copied as one line.
        console.print(line, soft_wrap=True)
        if finding.remedy:
            console.print(
                styled(f"{'':<8} {'':<{width}}  ", ("-> " + finding.remedy, "dim")), soft_wrap=True
            )
