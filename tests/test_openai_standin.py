"""The stand-in for the OpenAI API, seen through the official SDK: what a demo or a user's test may rely on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import FileObject
from openai.types.responses import Response

from onward.testing import openai_standin
from onward.testing.openai_standin import FAULTS, NOTICE, OpenAIStandin, main, quote

DAY = 86_400
REPORT = """The lighthouse

The lighthouse at Skerry Point was finished in 1871. Its lamp burns rape oil, four litres each night.
Storms closed the harbour for nine days in the winter of 1874. The keeper is paid
sixty pounds a year. Visitors may climb the tower on Sundays!
"""
SENTENCES = " ".join(REPORT.split())


class Hands:
    """A clock that only the test moves."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hands:
    return Hands()


Start = Callable[..., tuple[OpenAIStandin, OpenAI]]


@pytest.fixture
def start(clock: Hands) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def start(max_retries: int = 0, **options: Any) -> tuple[OpenAIStandin, OpenAI]:
            server = stack.enter_context(OpenAIStandin(clock=clock, **options))
            client = OpenAI(base_url=server.base_url, api_key="stand-in", max_retries=max_retries)
            return server, stack.enter_context(client)

        yield start


def upload(client: OpenAI, name: str = "report.txt", content: bytes = REPORT.encode()) -> FileObject:
    expires_after: Any = {"anchor": "created_at", "seconds": DAY}
    return client.files.create(file=(name, content), purpose="user_data", expires_after=expires_after)


def question(file_id: str, text: str = "What closed the harbour?") -> Any:
    return [
        {
            "role": "user",
            "content": [{"type": "input_file", "file_id": file_id}, {"type": "input_text", "text": text}],
        }
    ]


def ask(client: OpenAI, file_id: str, text: str = "What closed the harbour?", **options: Any) -> Response:
    options = {"background": True, "store": True, "metadata": {"process": "p", "item": "1"}, **options}
    response: Response = client.responses.create(model="any", input=question(file_id, text), **options)
    return response


# A life


@pytest.mark.asyncio
async def test_a_document_is_uploaded_asked_about_polled_and_deleted_by_the_async_client(clock: Hands) -> None:
    with OpenAIStandin(seconds_queued=1, seconds_reasoning=2, clock=clock) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="stand-in", max_retries=0) as client:
            file = await client.files.create(file=("report.txt", REPORT.encode()), purpose="user_data")
            assert (file.bytes, file.filename, file.status) == (len(REPORT.encode()), "report.txt", "processed")
            response = await client.responses.create(
                model="any",
                input=question(file.id),
                background=True,
                store=True,
                metadata={"process": "p", "item": "1", "attempt": "1"},
            )
            assert (response.status, response.output_text, response.model) == ("queued", "", NOTICE)
            seen = []
            for _ in range(4):
                seen.append((await client.responses.retrieve(response.id)).status)
                clock.now += 1
            assert seen == ["queued", "in_progress", "in_progress", "completed"]
            done = await client.responses.retrieve(response.id)
            assert "Storms closed the harbour" in done.output_text
            assert done.metadata == {"process": "p", "item": "1", "attempt": "1"}
            assert (done.error, done.incomplete_details, done.completed_at) == (None, None, response.created_at + 3)

            assert (await client.files.delete(file.id)).deleted
            with pytest.raises(openai.NotFoundError, match="No such File object"):
                await client.files.delete(file.id)
            await client.responses.delete(response.id)
            with pytest.raises(openai.NotFoundError, match="not found"):
                await client.responses.delete(response.id)
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(response.id)
    assert server.report() == {
        "standin": NOTICE,
        "requests": 12,
        "polls": 6,
        "faults": {},
        "files": {"created": 1, "deleted": 1, "expired": 0, "left": [], "duplicates": {}},
        "responses": {"created": 1, "deleted": 1, "left": [], "duplicates": {}, "statuses": {"completed": 1}},
    }


def test_the_report_is_served_without_a_key_and_shows_what_was_left_behind(start: Start) -> None:
    server, client = start()
    file = upload(client)
    response = ask(client, file.id)
    with urlopen(server.base_url.removesuffix("/v1") + "/standin/report") as reply:
        report = json.load(reply)
    assert report == server.report()
    assert (report["files"]["left"], report["responses"]["left"]) == ([file.id], [response.id])
    assert report["responses"]["statuses"] == {"queued": 1}


def test_files_are_listed_in_pages_newest_first_and_filtered_by_purpose(start: Start) -> None:
    _, client = start()
    files = [upload(client, f"{number}.txt") for number in range(5)]
    other = client.files.create(file=("b.jsonl", b"{}"), purpose="batch")
    assert other.expires_at == other.created_at + 30 * DAY
    page = client.files.list(purpose="user_data", limit=2)
    assert ([file.filename for file in page.data], page.has_more) == (["4.txt", "3.txt"], True)
    assert page.model_dump()["last_id"] == files[3].id
    every = [file.filename for file in client.files.list(purpose="user_data", limit=2)]
    assert every == ["4.txt", "3.txt", "2.txt", "1.txt", "0.txt"]
    last = client.files.list(order="asc", after=files[4].id, limit=1)
    assert ([file.id for file in last.data], last.has_more) == ([other.id], False)
    assert client.files.retrieve(files[2].id) == files[2]


def test_name_and_bytes_arrive_as_they_were_sent(start: Start) -> None:
    _, client = start()
    name, content = 'Bericht "Süd".txt', b"\r\none\r\n\r\ntwo\n--three\r\n--\r\n"
    file = upload(client, name, content)
    assert (file.filename, file.bytes) == (name, len(content))


def test_a_file_expires_by_the_clock(start: Start, clock: Hands) -> None:
    server, client = start()
    file, kept = upload(client), client.files.create(file=("kept.txt", b"x"), purpose="user_data")
    assert (file.expires_at, kept.expires_at) == (file.created_at + DAY, None)
    clock.now += DAY
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    assert [file.id for file in client.files.list()] == [kept.id]
    assert server.report()["files"] == {"created": 2, "deleted": 0, "expired": 1, "left": [kept.id], "duplicates": {}}


def test_cancelling_is_idempotent_and_comes_too_late_for_what_has_ended(start: Start, clock: Hands) -> None:
    server, client = start()
    file = upload(client)
    response, late = ask(client, file.id), ask(client, file.id)
    assert [client.responses.cancel(response.id).status for _ in range(2)] == ["cancelled", "cancelled"]
    clock.now += 60
    assert client.responses.retrieve(response.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a completed response"):
        client.responses.cancel(late.id)
    foreground = ask(client, file.id, background=False)
    assert foreground.status == "completed"
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(foreground.id)
    assert server.report()["responses"]["statuses"] == {"cancelled": 1, "completed": 2}


def test_nobody_answers_after_the_end(start: Start) -> None:
    with OpenAIStandin() as server, OpenAI(base_url=server.base_url, api_key="stand-in", max_retries=0) as client:
        upload(client)
        server.__exit__()
        with pytest.raises(openai.APIConnectionError):
            client.files.list()


# Answers


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("What closed the harbour?", "Storms closed the harbour for nine days in the winter of 1874."),
        ("Which lighthouse is it?", "The lighthouse at Skerry Point was finished in 1871."),
        ("How much is the keeper paid?", "The keeper is paid sixty pounds a year."),
        ("What does a visitor do?", "Visitors may climb the tower on Sundays!"),
    ],
)
def test_the_answer_quotes_what_is_nearest_to_the_question_and_says_so(asked: str, first: str) -> None:
    notice, *quoted = quote(REPORT, asked).splitlines()
    assert NOTICE in notice
    assert quoted[0] == first
    assert len(quoted) == 3
    assert all(sentence in SENTENCES for sentence in quoted)
    assert quote(REPORT, asked) == quote(REPORT, asked)


@pytest.mark.parametrize(("text", "quoted"), [("", "There is no text to quote."), ("only words", "only words")])
def test_a_text_without_sentences_has_an_answer_too(text: str, quoted: str) -> None:
    assert quote(text, "What?").splitlines()[1:] == [quoted]


def test_a_file_that_is_not_text_makes_the_response_fail(start: Start, clock: Hands) -> None:
    server, client = start(faults={"incomplete": 1})
    response = ask(client, upload(client, "picture.pdf", b"\xff\xfe\x00").id)
    clock.now += 60
    failed = client.responses.retrieve(response.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.output_text) == ("failed", "invalid_prompt", "")
    assert server.report()["faults"] == {"incomplete": 0}


# Faults


def test_a_429_says_when_to_come_back_and_was_not_done(start: Start) -> None:
    server, client = start(faults={"429": 2}, seconds_retry_after=7)
    upload(client)
    with pytest.raises(openai.RateLimitError) as refused:
        upload(client)
    assert (refused.value.code, refused.value.response.headers["retry-after"]) == ("rate_limit_exceeded", "7")
    assert refused.value.request_id
    assert server.report()["files"]["created"] == 1
    assert server.report()["faults"] == {"429": 1}


def test_an_exhausted_quota_refuses_responses_only(start: Start) -> None:
    server, client = start(faults={"quota": 1})
    with pytest.raises(openai.RateLimitError) as refused:
        ask(client, upload(client).id)
    assert (refused.value.code, "retry-after" in refused.value.response.headers) == ("insufficient_quota", False)
    assert server.report()["responses"]["created"] == 0


def test_a_500_was_not_done(start: Start) -> None:
    server, client = start(faults={"500": 1})
    with pytest.raises(openai.InternalServerError):
        upload(client)
    assert server.report()["files"]["created"] == 0


def test_an_upload_whose_reply_is_lost_is_found_again_by_its_name(start: Start) -> None:
    server, client = start(faults={"lost": 2})
    upload(client, "p.1.txt")
    with pytest.raises(openai.APIConnectionError):
        upload(client, "p.2.txt")
    (found,) = [file for file in client.files.list(purpose="user_data") if file.filename == "p.2.txt"]
    assert server.report()["files"]["left"][1] == found.id
    assert server.report()["faults"] == {"lost": 1}


def test_a_lost_reply_loses_creation_and_deletion_of_responses_too(start: Start) -> None:
    server, client = start(faults={"lost": 1})
    with pytest.raises(openai.APIConnectionError):
        upload(client)
    (file,) = client.files.list()
    with pytest.raises(openai.APIConnectionError):
        ask(client, file.id)
    (response,) = server.report()["responses"]["left"]
    with pytest.raises(openai.APIConnectionError):
        client.responses.delete(response)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(response)
    assert server.report()["faults"] == {"lost": 3}


def test_the_report_shows_the_duplicates_that_a_retrying_client_makes_of_a_lost_reply(start: Start) -> None:
    server, client = start(faults={"lost": 2}, max_retries=1)
    file = upload(client, "p.1.txt")
    with pytest.raises(openai.NotFoundError):  # what is refused is not counted: no reply of it could be lost
        client.files.delete("file-unknown")
    upload(client, "p.2.txt")
    ask(client, file.id)
    assert server.report()["files"]["duplicates"] == {"p.2.txt": 2}
    assert server.report()["responses"]["duplicates"] == {"p/1": 2}
    assert (server.report()["files"]["created"], server.report()["responses"]["created"]) == (3, 2)


def test_a_response_can_be_ordered_to_fail_or_to_stay_incomplete(start: Start, clock: Hands) -> None:
    server, client = start(faults={"failed": 2, "incomplete": 2})
    file = upload(client)
    ids = [ask(client, file.id).id for _ in range(4)]
    assert [(seen.status, seen.error) for seen in map(client.responses.retrieve, ids)] == [("queued", None)] * 4
    clock.now += 60
    first, failed, incomplete, last = [client.responses.retrieve(id) for id in ids]
    assert (first.status, last.status) == ("completed", "failed")
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.output_text) == ("failed", "server_error", "")
    assert incomplete.incomplete_details is not None
    assert (incomplete.status, incomplete.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert first.output_text.startswith(incomplete.output_text)
    assert server.report()["faults"] == {"failed": 2, "incomplete": 1}


def test_faults_are_counted_right_under_concurrent_clients(start: Start) -> None:
    server, client = start(faults={"429": 4})

    def is_refused(number: int) -> bool:
        try:
            upload(client, f"{number}.txt")
        except openai.RateLimitError:
            return True
        return False

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(is_refused, range(40))) == 10
    assert (server.report()["files"]["created"], server.report()["faults"]) == (30, {"429": 10})


@pytest.mark.parametrize("faults", [{"500": 0}, {"flood": 3}])
def test_an_unknown_fault_is_refused_with_the_kinds_that_are_known(faults: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=", ".join(FAULTS)):
        OpenAIStandin(faults=faults)


# Refusals


def send(server: OpenAIStandin, method: str, path: str, body: str = "", **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())


def test_a_request_without_a_key_or_with_a_broken_body_is_refused(start: Start) -> None:
    server, _ = start()
    assert send(server, "GET", "/v1/files")[0] == 401
    for path in ("/v1/responses", "/v1/files"):
        for body in ("{", "[]", ""):
            status, reply = send(server, "POST", path, body, Authorization="Bearer x")
            assert (status, reply["error"]["type"]) == (400, "invalid_request_error")
    assert send(server, "GET", "/v1/models", Authorization="Bearer x")[0] == 404
    assert send(server, "POST", "/v1/files", Authorization="Bearer x", **{"Content-Length": "?"})[0] == 411
    assert send(server, "POST", "/v1/files", Authorization="Bearer x", **{"Transfer-Encoding": "chunked"})[0] == 411
    assert server.report()["requests"] == 8


@pytest.mark.parametrize(
    "options",
    [
        {"purpose": "homework"},
        {"expires_after": {"anchor": "created_at", "seconds": 3_599}},
        {"expires_after": {"anchor": "created_at", "seconds": 2_592_001}},
        {"expires_after": {"anchor": "last_active_at", "seconds": DAY}},
        {"file": ("x" * 256, b"")},
    ],
)
def test_an_upload_outside_the_rules_is_refused(start: Start, options: dict[str, Any]) -> None:
    server, client = start()
    with pytest.raises(openai.BadRequestError):
        client.files.create(**{"file": ("a.txt", b""), "purpose": "user_data", **options})
    assert server.report()["files"]["created"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": {str(number): "" for number in range(17)}},
        {"metadata": {"k" * 65: ""}},
        {"metadata": {"k": "v" * 513}},
        {"store": False},
        {"input": question("file-unknown")},
        {"input": []},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://127.0.0.1/"}]}]},
    ],
)
def test_a_question_outside_the_rules_is_refused(start: Start, options: dict[str, Any]) -> None:
    server, client = start()
    with pytest.raises(openai.BadRequestError):
        client.responses.create(**{"model": "any", "input": "What?", "background": True, **options})
    assert server.report()["responses"]["created"] == 0


@pytest.mark.parametrize(("name", "got"), [("process.1.0a1b2c3d", "but got .0a1b2c3d"), ("report", "but got none")])
def test_a_file_whose_name_ends_in_no_known_type_cannot_be_asked_about(start: Start, name: str, got: str) -> None:
    _, client = start()
    file = upload(client, name)
    with pytest.raises(openai.BadRequestError, match=got):
        ask(client, file.id)


def test_every_limit_refuses_visibly(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = start()
    monkeypatch.setattr(openai_standin, "BODY_BYTES_MAX", 2**20)
    with pytest.raises(openai.APIStatusError) as refused:
        upload(client, content=bytes(2**24))
    assert refused.value.status_code == 413
    with pytest.raises(openai.BadRequestError, match="limit"):
        client.files.list(limit=10_001)
    monkeypatch.setattr(openai_standin, "STORED_BYTES_MAX", 2_000)
    file = upload(client, content=bytes(1_500))
    with pytest.raises(openai.BadRequestError, match="full"):
        upload(client, content=bytes(501))
    client.files.delete(file.id)
    file = upload(client, content=bytes(2_000))
    monkeypatch.setattr(openai_standin, "OBJECTS_MAX", 2)
    with pytest.raises(openai.BadRequestError, match="full"):
        ask(client, file.id)
    monkeypatch.setattr(openai_standin, "THREADS_MAX", 0)
    with pytest.raises(openai.APIConnectionError):
        client.files.list()
    assert server.report()["files"]["left"] == [file.id]


def test_a_client_that_dies_while_it_uploads_leaves_nothing(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    server, client = start()
    whole = client.files.with_raw_response.create(file=("a.txt", bytes(100)), purpose="user_data").http_request
    head = "".join(f"{name}: {value}\r\n" for name, value in whole.headers.items())
    with socket.create_connection(("127.0.0.1", urlsplit(server.base_url).port)) as dying:
        dying.sendall(f"POST /v1/files HTTP/1.1\r\n{head}\r\n".encode() + whole.read()[:-50])
    assert len(list(client.files.list())) == 1
    assert server.report()["requests"] == 2
    deadline = time.monotonic() + 5
    while any("process_request" in thread.name for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert capfd.readouterr().err == ""


# A process of its own

COMMAND = [sys.executable, "-m", "onward.testing.openai_standin"]


@contextlib.contextmanager
def running(*command: str, **options: Any) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process and the base URL it printed; it is killed at the end, or a test that fails would wait for ever."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            assert line.startswith(f"{NOTICE} · http://127.0.0.1:")
            yield process, line.split()[-1]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_a_process_it_says_where_it_is_and_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    options = ["--seconds-queued", "0", "--seconds-reasoning", "0", "--fault", "429:3", "500:9", "--fault", "lost:9"]
    with running(*COMMAND, *options) as (process, base_url):
        with OpenAI(base_url=base_url, api_key="stand-in", max_retries=0) as client:
            response = ask(client, upload(client).id)
            assert response.status == "queued"
            with pytest.raises(openai.RateLimitError):
                client.files.list()
            assert client.responses.retrieve(response.id).status == "completed"
        process.send_signal(number)
        rest, errors = process.communicate(timeout=5)
        assert (process.returncode, rest, errors) == (0, b"", b"")


def test_with_parent_it_ends_when_the_parent_was_killed() -> None:
    parent = f"""
import subprocess
child = subprocess.Popen({[*COMMAND, "--with-parent"]}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
print(child.stdout.readline().decode().strip(), flush=True)
print(child.pid, flush=True)
child.wait()
"""
    with running(sys.executable, "-c", parent, env={**os.environ, "PYTHONUTF8": "1"}) as (process, base_url):
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        try:
            wait_until_gone(base_url)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise


def wait_until_gone(base_url: str) -> None:
    """By its port: a process id outlives its process, as a zombie's."""
    deadline = time.monotonic() + 5
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < deadline:
            socket.create_connection(("127.0.0.1", urlsplit(base_url).port)).close()
            time.sleep(0.02)


def test_with_parent_it_ends_when_its_standard_input_is_closed() -> None:
    with running(*COMMAND, "--with-parent", stdin=subprocess.PIPE) as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(5) == 0


@pytest.mark.parametrize("fault", ["flood:3", "429", "429:0", "429:x", "429:-1"])
def test_a_wrong_fault_is_a_usage_error_that_names_the_kinds(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--fault", fault])
    assert ended.value.code == 2
    assert ", ".join(FAULTS) in capsys.readouterr().err


def test_a_port_in_use_is_a_usage_error(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    server, _ = start()
    with pytest.raises(SystemExit) as ended:
        main(["--port", str(urlsplit(server.base_url).port)])
    assert ended.value.code == 2
    assert "cannot listen" in capsys.readouterr().err
