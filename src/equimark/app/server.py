"""The routes of the page, and the server.

Routes are plain functions: the framework runs them in threads, and the model works in one of its own, so that
nothing heavy holds up an answer. The server listens on 127.0.0.1 only, and refuses what other sites send by way of
the person's browser.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from equimark.app import AppError
from equimark.app.desk import Desk, Json
from equimark.app.gallery import Filter, Order
from equimark.app.history import Said, Turn
from equimark.app.session import Conflict, Landmark
from equimark.directions import Direction
from equimark.embedding import ModelError
from equimark.images import ImageError
from equimark.landmarks import LandmarkError, LandmarkTable
from equimark.model import LandmarkModel

HOST = "127.0.0.1"
_STATIC = Path(__file__).parent / "static"
_POLICY = "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # addresses of pictures change when they do


class _Landmark(BaseModel):
    id: str = Field(max_length=40)
    name: str = Field(max_length=200)
    colour: str = Field(pattern="^#[0-9a-fA-F]{6}$")
    mirror: str | None = None


class _Said(BaseModel):
    what: str = "a change"
    key: str | None = None
    turn: Turn = "change"

    def for_history(self) -> Said:
        return Said(self.what, self.key, self.turn)


class _Landmarks(BaseModel):
    revision: int
    said: _Said = _Said()
    landmarks: list[_Landmark] = Field(max_length=1000)
    dismissed: list[str] | None = None


class _Marks(BaseModel):
    revision: int
    said: _Said = _Said()
    marks: dict[str, dict[str, list[Any] | None]]


class _Question(BaseModel):
    points: list[tuple[str, float, float]] = Field(max_length=200)
    targets: list[str] = Field(max_length=200)
    heat_of: int | None = None
    colours: list[str] | None = None
    reference: str | None = None


class _Export(BaseModel):
    format: str
    everything: bool = False
    least: float = Field(0.0, ge=0, le=1)


class _Head(BaseModel):
    name: str


def make_app(desk: Desk) -> FastAPI:
    """The page of a desk, as a web application; the engine works while it is up."""

    @contextlib.asynccontextmanager
    async def working(_: FastAPI) -> AsyncIterator[None]:
        desk.engine.start()
        yield
        desk.engine.close()

    app = FastAPI(lifespan=working, dependencies=[Depends(_refuse_strangers)], docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    _add_looking(app, desk)
    _add_changing(app, desk)
    app.mount("/static", StaticFiles(directory=_STATIC))
    app.get("/", include_in_schema=False)(_index)
    for kind, status in {
        Conflict: 409,
        AppError: 400,
        ImageError: 400,
        LandmarkError: 400,
        ModelError: 400,
        KeyError: 404,
        OSError: 500,
        Exception: 500,
        RequestValidationError: 422,
        HTTPException: 403,
    }.items():
        app.add_exception_handler(kind, _Complaint(status))
    return app


def _index() -> FileResponse:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return FileResponse(_STATIC / "index.html", headers=headers)


def _refuse_strangers(request: Request) -> None:
    """A page of another site may not send anything here."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{request.headers.get('host')}":
        raise HTTPException(403, "this page answers only to itself")


class _Complaint:
    """Errors as one line for the person."""

    def __init__(self, status: int) -> None:
        self._status = status

    def __call__(self, request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, KeyError):
            message = "there is no such image or file; it may have been removed since the program was started"
        elif isinstance(error, RequestValidationError):
            fault = error.errors()[0]
            message = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        else:
            message = str(getattr(error, "detail", "") or error or type(error).__name__)
        return JSONResponse({"message": message}, self._status)


def _add_looking(app: FastAPI, desk: Desk) -> None:
    """What changes nothing."""
    app.get("/api/state")(desk.state)
    app.get("/api/progress")(desk.progress)

    @app.get("/api/images")
    def images(
        which: Annotated[Filter, Query(alias="filter")] = "all",
        order: Order = "name",
        search: str = "",
        low: float | None = None,
        seed: int = 0,
        first: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=1, le=200)] = 48,
    ) -> Json:
        return desk.leaf(which, order, search=search, low=low, seed=seed, first=first, count=count)

    @app.get("/api/suggestions")
    def suggestions(count: Annotated[int, Query(ge=1, le=50)] = 6) -> Json:
        return {"items": desk.suggestions(count)}

    @app.get("/api/images/{key}")
    def image(key: str) -> Json:
        return desk.opened(desk.find(key))

    @app.get("/api/images/{key}/thumbnail")
    def thumbnail(key: str) -> Response:
        return Response(desk.pictures.thumbnail(desk.find(key)), media_type="image/jpeg", headers=_FOREVER)

    @app.get("/api/images/{key}/picture")
    def picture(key: str) -> Response:
        return Response(desk.pictures.shown(desk.find(key)), media_type="image/jpeg", headers=_FOREVER)

    @app.get("/api/images/{key}/own-points")
    def own_points(key: str) -> Json:
        return desk.own_points(desk.find(key))

    @app.post("/api/explore")
    def explore(asked: _Question) -> Json:
        found = desk.explore(
            asked.points, asked.targets, heat_of=asked.heat_of, colours=asked.colours, reference=asked.reference
        )
        return {"sights": found}


def _add_changing(app: FastAPI, desk: Desk) -> None:
    """What changes labels, and what writes files."""

    @app.put("/api/landmarks")
    def landmarks(given: _Landmarks) -> Json:
        made = [Landmark(**each.model_dump()) for each in given.landmarks]
        return desk.set_landmarks(made, given.revision, given.dismissed, given.said.for_history())

    @app.put("/api/marks")
    def marks(given: _Marks) -> Json:
        return desk.set_marks(given.marks, given.revision, given.said.for_history())

    @app.post("/api/export")
    def export(asked: _Export) -> Json:
        return desk.export(asked.format, everything=asked.everything, least=asked.least)

    @app.post("/api/head")
    def head(asked: _Head) -> Json:
        return desk.export_head(asked.name)

    @app.get("/api/exports/{file}")
    def exported(file: str) -> FileResponse:
        return FileResponse(desk.exported(file), filename=file, content_disposition_type="attachment")


# ---- the server ---------------------------------------------------------------------------------------------


def serve(
    model: LandmarkModel,
    run: Path,
    images: Path,
    *,
    port: int,
    table: LandmarkTable | None = None,
    work: Path | None = None,
    direction: Direction = "auto",
    browser: bool = True,
) -> None:
    """See :func:`equimark.app.serve`."""
    with contextlib.closing(_listen(port)) as listening:
        desk = Desk(model, run, images, table=table, work=work, direction=direction)
        if desk.left_aside:
            print(f"equimark: {desk.session.path} holds labels already: --landmarks was left aside", file=sys.stderr)
        address = f"http://{HOST}:{listening.getsockname()[1]}/"
        print(f"the page of {len(desk.pictures)} images is at {address} (stop it with Ctrl-C)")
        print(f"labels are kept in {desk.session.path}", flush=True)
        server = uvicorn.Server(uvicorn.Config(make_app(desk), log_level="warning", timeout_graceful_shutdown=2))
        if browser and _has_screen():
            threading.Thread(target=_open_browser, args=[server, address], daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):  # the usual way to stop; everything is saved
            server.run([listening])


def _listen(port: int) -> socket.socket:
    """A socket on a port of this machine.

    Raises:
        AppError: if something else listens there.
    """
    listening = socket.socket()
    if os.name == "posix":  # a port that was in use a moment ago may be taken again; elsewhere this means another thing
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(128)
    except OverflowError:
        listening.close()
        raise AppError(f"--port must lie between 0 and 65535, got {port}") from None
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise AppError(
                f"port {port} is taken, perhaps by another page of Equimark: choose another with --port, or 0 for any"
            ) from None
        raise AppError(f"cannot listen on port {port}: {error.strerror}") from None
    return listening


def _open_browser(server: uvicorn.Server, address: str) -> None:
    while not server.started:
        time.sleep(0.1)
    webbrowser.open(address)


def _has_screen() -> bool:
    """Whether a browser would open a window, and not take over the terminal."""
    if platform.system() == "Linux":
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
