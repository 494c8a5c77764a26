"""The service that a flow talks to, in this program: an httpx transport that never goes to a network, and notes what is asked.

Nothing is imported for it: requests come with the httpx that made them.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from typing import Any

from onward.errors import OnwardError
from onward.testing.proving.effects import MAKING, Request, without_boundary
from onward.testing.proving.points import (
    AFTER_ANSWER,
    AFTER_REQUEST,
    AFTER_SYNC_REQUEST,
    BEFORE_REQUEST,
    BEFORE_SYNC_REQUEST,
    Moment,
)
from onward.testing.proving.scene import Scene, program, scene, where

Service = Callable[..., Any]  # a function request -> response, or an ASGI app


# To a type checker it fits wherever a transport is wanted: httpx goes by several names, and none is imported here.
_Transport: Any = object


class Http(_Transport):  # type: ignore[misc]
    """`httpx.AsyncClient(transport=Http(service))`, or `httpx.Client`.

    `service` is a function that is given the httpx.Request and answers an httpx.Response, or (status, JSON value); or an ASGI
    app; or a dictionary {host: service}. While a flow is proven each request is a point at which it is disturbed.
    """

    def __init__(self, service: Service | Mapping[str, Service]) -> None:
        self._service = service
        self.number = scene().enters(self)

    def _service_of(self, request: Any) -> Service:
        if not isinstance(self._service, Mapping):
            return self._service
        host = request.url.host
        if host not in self._service:
            raise OnwardError(
                f"{request.method} {request.url}: nobody plays the host {host!r}, and a proof never goes to the network",
                hint=f"Http({{{host!r}: service, ...}})",
            )
        return self._service[host]

    async def answered(self, request: Any) -> Any:
        """By the service, with the request noted, and nothing disturbed."""
        return await _answered(self._service_of(request), request, _noted(request), scene())

    async def handle_async_request(self, request: Any) -> Any:
        await request.aread()
        service = scene().plays(self, self._service_of(request))
        note, what = _noted(request), f"{request.method} {request.url.path}"
        place = _place(request)

        async def at(moment: Moment, error: str) -> None:
            if await scene().at(moment, what, place) is not None:
                raise _error(request, error)

        await at(BEFORE_REQUEST, "ConnectError")
        # What was sent is done, and noted, whatever becomes of who asked.
        answering = asyncio.get_running_loop().create_task(_answered(service, request, note, scene()), context=Context())
        response = await asyncio.shield(answering)
        await at(AFTER_REQUEST, "ReadTimeout")
        await at(AFTER_ANSWER, "")
        return response

    def handle_request(self, request: Any) -> Any:
        request.read()
        service = scene().plays(self, self._service_of(request))
        note, what = _noted(request), f"{request.method} {request.url.path}"
        place = _place(request)

        def at(moment: Moment, error: str) -> None:
            if scene().at_once(moment, what, place) is not None:
                raise _error(request, error)

        at(BEFORE_SYNC_REQUEST, "ConnectError")
        response = _response(request, service(request))
        if inspect.isawaitable(response):
            raise OnwardError("an httpx.Client cannot ask an asynchronous service", hint="httpx.AsyncClient(transport=...)")
        _note(note, response, scene())
        at(AFTER_SYNC_REQUEST, "ReadTimeout")
        return response

    def close(self) -> None:
        """Nothing was opened."""

    async def aclose(self) -> None:
        """Nothing was opened."""

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def __enter__(self) -> Http:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _package(request: Any) -> Any:
    return sys.modules[type(request).__module__.partition(".")[0]]


def _error(request: Any, name: str) -> Exception:
    error: Exception = getattr(_package(request), name)("as the proof wants it", request=request)
    return error


def _place(request: Any) -> str:
    """All requests to one collection are much the same."""
    return f"{request.method} {str(request.url.path).strip('/').rpartition('/')[0] or request.url.path}"


def _noted(request: Any) -> Request:
    return Request(
        method=request.method,
        url=str(request.url),
        path=request.url.path,
        body=without_boundary(request.content, request.headers.get("content-type", "")),
        key=request.headers.get("idempotency-key", ""),
        act=where.get().act,
        program=program(),
    )


async def _answered(service: Service, request: Any, note: Request, whose: Scene) -> Any:
    response = await _answer(service, request)
    _note(note, response, whose)
    return response


def _note(note: Request, response: Any, whose: Scene) -> None:
    note.status = response.status_code
    if note.method in MAKING and note.worked:
        note.made = _id_in(response.content)
    whose.requested(note)


def _id_in(content: bytes) -> str:
    try:
        answer = json.loads(content)
    except ValueError:
        return ""
    id = answer.get("id", "") if isinstance(answer, dict) else ""
    return str(id) if isinstance(id, str | int) and not isinstance(id, bool) else ""


async def _answer(service: Service, request: Any) -> Any:
    if len(inspect.signature(service).parameters) >= 3:
        return await _asked_of_asgi(service, request)
    response = service(request)
    return _response(request, await response if isinstance(response, Awaitable) else response)


def _response(request: Any, answer: Any) -> Any:
    if not isinstance(answer, tuple):
        return answer
    status, value = answer
    return _package(request).Response(status, json=value)


async def _asked_of_asgi(app: Service, request: Any) -> Any:
    transport = _package(request).ASGITransport(app=app)
    response = await transport.handle_async_request(request)
    await response.aread()
    return _package(request).Response(response.status_code, headers=response.headers, content=response.content)
