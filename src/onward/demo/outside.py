"""What the main job meets when it is proven: the stand-in for the API, in this program and by virtual time.

onward --app onward.demo.flow:app prove batch --outside onward.demo.outside:standin
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from typing import Any

import openai

from onward.testing.openai_standin import OpenAIStandin, Refusal
from onward.testing.proving import Http, Outside

SECONDS_QUEUED, SECONDS_REASONING = 1.5, 4.0


@contextmanager
def standin() -> Iterator[Outside]:
    service = OpenAIStandin(
        port=None,
        seconds_queued=SECONDS_QUEUED,
        seconds_reasoning=SECONDS_REASONING,
        clock=asyncio.get_running_loop().time,
    )

    def answer(request: Any) -> tuple[int, Any]:
        headers = Message()
        for name, value in request.headers.items():
            headers[name] = value
        try:
            return 200, service.answer(request.method, request.url.raw_path.decode(), headers, request.content)
        except Refusal as refusal:
            return refusal.status, {"error": refusal.body}

    client = openai.AsyncOpenAI(
        api_key="stand-in",
        base_url=service.base_url,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(transport=Http(answer)),
    )
    yield Outside(resources=client)
