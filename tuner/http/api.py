"""HTTP of the tuner: traces in, tables out, and what people look at.

Everything the app knows comes from the core, by functions of the Tuner; one that is away is a 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import prometheus_client
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from pod_integrate import __version__
from pod_integrate.errors import TraceError
from pod_integrate.terms import wire
from tuner.core import Tuner
from tuner.host.client import AsyncCore, CoreUnavailableError
from tuner.http import docs, docs_page
from tuner.http.answers import JSON, ApiError, json_answer
from tuner.http.feed import Feed
from tuner.http.headers import Guard
from tuner.http.metrics import HttpMetrics, render
from tuner.http.schemas import components
from tuner.http.writes import add_writes
from tuner.messages import Scope, StudyKey
from tuner.view import documents, overview

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parents[1] / "page"
HOUSEKEEPING_SECONDS = 2.0
MAX_STREAMS = 64

_Key = Annotated[str, Query(min_length=1, max_length=wire.MAX_KEY, pattern=wire.KEY_PATTERN)]


class _App(FastAPI):
    """FastAPI with the schemas of our own types."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document.setdefault("components", {}).setdefault("schemas", {}).update(components())
        return document


def create_app(core: AsyncCore, *, token: str = "") -> FastAPI:
    """The HTTP service over a core.

    token  bearer token that writes must carry; empty: none is asked for
    """
    feed = Feed(core)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        keeper = asyncio.create_task(_housekeep(core))
        yield
        feed.stop()
        keeper.cancel()

    app = _App(
        title="pod-attention tuner", version=__version__, description=docs.ABOUT,
        lifespan=lifespan, openapi_tags=docs.TAGS, docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.metrics, app.state.feed = HttpMetrics(), feed
    add_writes(app, core, token)
    _add_reads(app, core, feed)
    _add_page(app)
    _add_errors(app)
    app.add_middleware(Guard, metrics=app.state.metrics)
    return app


def _add_reads(app: FastAPI, core: AsyncCore, feed: Feed) -> None:
    @app.get("/v1/table", **docs.TABLE)
    async def get_table(request: Request, geometry: _Key, device: _Key, build: _Key) -> Response:
        body = await core.ask(Tuner.table, Scope(geometry, device, build))
        if body is None:
            raise ApiError(404, f"no table yet for {geometry} on {device} with {build}")
        etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        wanted = [item.strip() for item in request.headers.get("if-none-match", "").split(",")]
        if etag in wanted or "*" in wanted:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=JSON, headers=headers)

    @app.get("/v1/overview", **docs.OVERVIEW)
    async def get_overview() -> Response:
        return Response(await feed.latest(), media_type=JSON)

    @app.get("/v1/events", **docs.EVENTS)
    async def get_events() -> StreamingResponse:
        if feed.streams >= MAX_STREAMS:
            raise ApiError(503, f"{MAX_STREAMS} event streams are open; poll /v1/overview instead")
        return StreamingResponse(feed.events(), media_type="text/event-stream")

    @app.get("/v1/trials", **docs.TRIALS)
    async def get_trials(geometry: _Key, device: _Key, build: _Key, bucket: _Key) -> Response:
        key = StudyKey(geometry, device, build, bucket)
        return json_answer(await core.ask(overview.trials, key))

    @app.get("/v1/samples", **docs.SAMPLES)
    async def get_samples(geometry: _Key, device: _Key, build: _Key) -> Response:
        return json_answer(await core.ask(overview.samples, Scope(geometry, device, build)))

    @app.get("/healthz", **docs.HEALTH)
    async def get_health() -> Response:
        if trouble := await core.ask(Tuner.health):
            raise CoreUnavailableError(f"database: {trouble}")
        return json_answer(documents.Health(status="ok", version=__version__))

    @app.get("/metrics", **docs.METRICS)
    async def get_metrics() -> Response:
        text = render(await feed.overview(), app.state.metrics)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def get_page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def get_docs() -> HTMLResponse:
        return HTMLResponse(docs_page.render(app.openapi()))

    @app.get("/docs.css", include_in_schema=False)
    async def get_docs_style() -> FileResponse:
        return FileResponse(PAGE.parent / "docs.css")

    app.mount("/static", StaticFiles(directory=PAGE), name="static")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def on_api_error(_request: Request, error: ApiError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.status, error.headers)

    @app.exception_handler(TraceError)
    async def on_trace_error(_request: Request, error: TraceError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(CoreUnavailableError)
    async def on_unavailable(_request: Request, error: CoreUnavailableError) -> JSONResponse:
        logger.error("core unavailable: %s", error)
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": "2"})

    @app.exception_handler(RequestValidationError)
    async def on_bad_query(_request: Request, error: RequestValidationError) -> JSONResponse:
        where = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors())
        return JSONResponse({"error": where}, 400)

    @app.exception_handler(HTTPException)
    async def on_http_error(_request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def on_bug(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"error": "internal error; the tuner's log has the details"}, 500)


async def _housekeep(core: AsyncCore) -> None:
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        try:
            await core.ask(Tuner.housekeeping)
        except CoreUnavailableError as error:
            logger.error("housekeeping put off: %s", error)
        except Exception:
            # A bug here must not end housekeeping for good: the next round tries again.
            logger.exception("housekeeping failed")
