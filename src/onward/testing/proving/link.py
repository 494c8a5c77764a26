"""Between a proof and the programs that it kills for real: lines of JSON, of which each says when it was sent."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
from typing import Any


class Link:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rwb")
        self.began = 0.0  # virtual time, when this program began

    def send(self, kind: str, value: Any) -> None:
        time = self.began + asyncio.get_running_loop().time()
        self._file.write(json.dumps([time, kind, value]).encode() + b"\n")
        self._file.flush()

    def read(self) -> tuple[float, str, Any] | None:
        """Waits; None where the other program has ended."""
        try:
            line = self._file.readline()
        except (ConnectionError, TimeoutError):
            return None
        return tuple(json.loads(line)) if line.endswith(b"\n") else None

    def ask(self, kind: str, value: Any) -> Any:
        self.send(kind, value)
        answer = self.read()
        if answer is None:
            raise ConnectionError("the proof has ended")
        return answer[2]

    def close(self) -> None:
        self._file.close()
        self._connection.close()


def request_as_json(request: Any) -> dict[str, Any]:
    return {
        "package": type(request).__module__.partition(".")[0],
        "method": request.method,
        "url": str(request.url),
        "headers": list(request.headers.multi_items()),
        "content": base64.b64encode(request.content).decode(),
    }


def request_of(told: dict[str, Any]) -> Any:
    package: Any = sys.modules[told["package"]]
    content = base64.b64decode(told["content"])
    return package.Request(told["method"], told["url"], headers=[tuple(pair) for pair in told["headers"]], content=content)


def response_as_json(response: Any) -> dict[str, Any]:
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in ("content-encoding",)]
    return {"status": response.status_code, "headers": headers, "content": base64.b64encode(response.content).decode()}


def response_of(told: dict[str, Any], request: Any) -> Any:
    package: Any = sys.modules[type(request).__module__.partition(".")[0]]
    headers = [tuple(pair) for pair in told["headers"]]
    return package.Response(told["status"], headers=headers, content=base64.b64decode(told["content"]))
