"""What needs the token: traces, experiments, re-checks, and people's orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, FastAPI, Path, Request, Response

from pod_integrate.errors import TraceError
from pod_integrate.terms import wire
from pod_integrate.terms.experiment import ExperimentAsk, ExperimentReport
from pod_integrate.terms.table import MAX_TABLE_BYTES
from pod_integrate.terms.trace import MAX_MESSAGE_BYTES, decode
from tuner.core import Tuner
from tuner.host.client import AsyncCore
from tuner.http import docs, write_docs
from tuner.http.admission import admission
from tuner.http.answers import JSON, MSGPACK, ApiError, content_type, json_answer, read
from tuner.messages import RecheckPairs
from tuner.orders import Answer, BucketOrder, Order, PinOrder, PromoteOrder, ServerOrder, TableOrder
from tuner.view import documents

_Id = Annotated[str, Path(min_length=1, max_length=wire.MAX_KEY, pattern=wire.KEY_PATTERN)]
_O = TypeVar("_O", bound=Order)
# A table, and who sends it why.
_TABLE_BYTES = MAX_TABLE_BYTES + (1 << 16)


def add_writes(app: FastAPI, core: AsyncCore, token: str) -> None:
    """Add the routes that write; see api.create_app."""
    either = [Depends(admission(token, JSON, MSGPACK))]
    json_only = [Depends(admission(token, JSON))]

    @app.post("/v1/traces", status_code=202, dependencies=either, **docs.TRACES)
    async def post_traces(request: Request) -> Response:
        as_json = content_type(request, MSGPACK, JSON) == JSON
        body = await read(
            request, MAX_MESSAGE_BYTES, what="trace message", remedy="post more often"
        )
        message = decode(body, json=as_json)
        taken = await core.ask(Tuner.ingest, message)
        return json_answer(documents.Taken(accepted=taken.accepted, duplicate=taken.duplicate), 202)

    @app.post("/v1/experiments", dependencies=either, **write_docs.EXPERIMENTS)
    async def post_ask(request: Request) -> Response:
        as_json = content_type(request, JSON, MSGPACK) == JSON
        body = await read(
            request, MAX_MESSAGE_BYTES,
            what="question for an experiment", remedy="name fewer buckets",
        )  # fmt: skip
        ask = ExperimentAsk.decode(body, json=as_json)
        experiment = await core.ask(Tuner.next_experiment, ask)
        if experiment is None:
            return Response(status_code=204)
        return Response(msgspec.json.encode(experiment), media_type=JSON)

    @app.post("/v1/experiments/{id}/report", dependencies=either, **write_docs.REPORT)
    async def post_report(id: _Id, request: Request) -> Response:
        as_json = content_type(request, JSON, MSGPACK) == JSON
        body = await read(
            request, MAX_MESSAGE_BYTES, what="experiment report", remedy="report in parts"
        )
        report = ExperimentReport.decode(body, json=as_json)
        if report.id != id:
            raise TraceError(f"the report is about {report.id[:64]!r}, its URL about {id[:64]!r}")
        noted = await core.ask(Tuner.report_experiment, report)
        return json_answer(documents.Noted(taken=noted.taken, done=noted.done))

    @app.post("/v1/recheck", dependencies=json_only, **docs.RECHECK)
    async def post_recheck(request: Request) -> Response:
        body = await read(request, MAX_MESSAGE_BYTES, what="re-check", remedy="send fewer pairs")
        message = RecheckPairs.decode(body)
        return json_answer(documents.Judged(verdict=await core.ask(Tuner.recheck, message)))

    _add_orders(app, core, json_only)


def _add_orders(app: FastAPI, core: AsyncCore, needed: list[Any]) -> None:
    def add(
        path: str, kind: type[_O], function: Callable[[Tuner, _O], Answer], texts: dict[str, Any],
        limit: int = MAX_MESSAGE_BYTES, remedy: str = "send only the fields that /docs lists",
    ) -> None:  # fmt: skip
        name = path.removeprefix("/v1/")

        async def post_order(request: Request) -> Response:
            order = kind.decode(await read(request, limit, what=f"{name} order", remedy=remedy))
            answer = await core.ask(function, order)
            if not answer.done:
                raise ApiError(409, answer.text)
            return json_answer(documents.Obeyed(done=answer.text))

        app.post(path, dependencies=needed, name=name, **texts)(post_order)

    add("/v1/pause", ServerOrder, Tuner.pause, write_docs.PAUSE)
    add("/v1/kill", Order, Tuner.kill, write_docs.KILL)
    add("/v1/resume", ServerOrder, Tuner.resume, write_docs.RESUME)
    add("/v1/pin", PinOrder, Tuner.pin, write_docs.PIN)
    add("/v1/promote", PromoteOrder, Tuner.promote, write_docs.PROMOTE)
    add("/v1/rollback", BucketOrder, Tuner.roll_back, write_docs.ROLL_BACK)
    add(
        "/v1/table", TableOrder, Tuner.import_table, write_docs.TABLE, limit=_TABLE_BYTES,
        remedy=f"the table's file may have {MAX_TABLE_BYTES}",
    )  # fmt: skip
