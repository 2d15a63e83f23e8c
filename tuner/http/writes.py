"""What needs the token: traces, experiments, re-checks, and people's orders."""

from __future__ import annotations

import hmac
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
from tuner.http.answers import JSON, MSGPACK, ApiError, is_json, json_answer, read
from tuner.messages import RecheckPairs
from tuner.orders import Answer, BucketOrder, Order, PinOrder, PromoteOrder, ServerOrder, TableOrder
from tuner.view import documents

_Id = Annotated[str, Path(min_length=1, max_length=wire.MAX_KEY, pattern=wire.KEY_PATTERN)]
_O = TypeVar("_O", bound=Order)
# A table, and who sends it why.
_TABLE_BYTES = MAX_TABLE_BYTES + (1 << 16)


def add_writes(app: FastAPI, core: AsyncCore, token: str) -> None:
    """Add the routes that write; see api.create_app."""

    async def authorized(request: Request) -> None:
        given = request.headers.get("authorization", "")
        expected = f"Bearer {token}"
        if token and not hmac.compare_digest(given.encode(), expected.encode()):
            raise ApiError(
                401,
                "writing needs the tuner's token: Authorization: Bearer <POD_TUNER_TOKEN>",
                {"WWW-Authenticate": "Bearer"},
            )

    needed = [Depends(authorized)]

    @app.post("/v1/traces", status_code=202, dependencies=needed, **docs.TRACES)
    async def post_traces(request: Request) -> Response:
        as_json = is_json(request, unsaid=MSGPACK)
        message = decode(await read(request, MAX_MESSAGE_BYTES), json=as_json)
        taken = await core.ask(Tuner.ingest, message)
        return json_answer(documents.Taken(accepted=taken.accepted, duplicate=taken.duplicate), 202)

    @app.post("/v1/experiments", dependencies=needed, **write_docs.EXPERIMENTS)
    async def post_ask(request: Request) -> Response:
        as_json = is_json(request, unsaid=JSON)
        ask = ExperimentAsk.decode(await read(request, MAX_MESSAGE_BYTES), json=as_json)
        experiment = await core.ask(Tuner.next_experiment, ask)
        if experiment is None:
            return Response(status_code=204)
        return Response(msgspec.json.encode(experiment), media_type=JSON)

    @app.post("/v1/experiments/{id}/report", dependencies=needed, **write_docs.REPORT)
    async def post_report(id: _Id, request: Request) -> Response:
        as_json = is_json(request, unsaid=JSON)
        report = ExperimentReport.decode(await read(request, MAX_MESSAGE_BYTES), json=as_json)
        if report.id != id:
            raise TraceError(f"the report is about {report.id[:64]!r}, its URL about {id[:64]!r}")
        noted = await core.ask(Tuner.report_experiment, report)
        return json_answer(documents.Noted(taken=noted.taken, done=noted.done))

    @app.post("/v1/recheck", dependencies=needed, **docs.RECHECK)
    async def post_recheck(request: Request) -> Response:
        message = RecheckPairs.decode(await read(request, MAX_MESSAGE_BYTES))
        return json_answer(documents.Judged(verdict=await core.ask(Tuner.recheck, message)))

    _add_orders(app, core, needed)


def _add_orders(app: FastAPI, core: AsyncCore, needed: list[Any]) -> None:
    def add(
        path: str, kind: type[_O], function: Callable[[Tuner, _O], Answer], texts: dict[str, Any],
        limit: int = MAX_MESSAGE_BYTES,
    ) -> None:  # fmt: skip
        async def post_order(request: Request) -> Response:
            order = kind.decode(await read(request, limit))
            answer = await core.ask(function, order)
            if not answer.done:
                raise ApiError(409, answer.text)
            return json_answer(documents.Obeyed(done=answer.text))

        app.post(path, dependencies=needed, name=path.removeprefix("/v1/"), **texts)(post_order)

    add("/v1/pause", ServerOrder, Tuner.pause, write_docs.PAUSE)
    add("/v1/resume", ServerOrder, Tuner.resume, write_docs.RESUME)
    add("/v1/pin", PinOrder, Tuner.pin, write_docs.PIN)
    add("/v1/promote", PromoteOrder, Tuner.promote, write_docs.PROMOTE)
    add("/v1/rollback", BucketOrder, Tuner.roll_back, write_docs.ROLL_BACK)
    add("/v1/table", TableOrder, Tuner.import_table, write_docs.TABLE, limit=_TABLE_BYTES)
