"""A stand-in for the OpenAI Files and Responses API, so that a demo or a test needs no key, no network and no money.

It speaks what the official SDK, unmodified, needs to upload, list and delete files and to ask, poll, cancel and
delete background responses; it breaks on order (`FAULTS`) and tells at the end what was left behind (`report`).

It is not a model: an answer quotes the sentences of the uploaded text which are nearest to the question, and says so.
It is no measure of the service's speed, price or judgement. It listens on loopback only, believes every key and
forgets everything when it ends. Where it can do less than the service, it refuses and names itself in the refusal.

    python -m onward.testing.openai_standin --fault lost:7 429:5     # prints its base URL as the last word of a line

    with OpenAIStandin(faults={"lost": 2}) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="stand-in", max_retries=0)
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import secrets
import select
import signal
import stat
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePath
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

HOST = "127.0.0.1"  # and no option to change it: it believes every key
NOTICE = "stand-in: no model is run"

BODY_BYTES_MAX = 16 * 2**20  # the service takes 512 MB a file; this keeps them in memory
STORED_BYTES_MAX = 256 * 2**20
OBJECTS_MAX = 100_000  # created in one life: the report remembers a name of each
THREADS_MAX = 1_024  # one a connection; the SDK opens at most 1,000
SILENCE_SECONDS_MAX = 60  # of a client in the middle of a request
LIST_MAX = 10_000  # the service's own, like the next three lines
METADATA_PAIRS_MAX, METADATA_KEY_CHARS_MAX, METADATA_TEXT_CHARS_MAX = 16, 64, 512
LIFETIME_SECONDS_MIN, LIFETIME_SECONDS_MAX = 3_600, 2_592_000
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
NAME_CHARS_MAX = 255
TEXT_CHARS_MAX = 1_000_000  # read for one answer
QUOTED_MAX, QUOTED_CHARS_MAX = 3, 400
WATCH_SECONDS = 0.1  # between two looks at signals and parent

# A part of the service's list. It goes by the end of the file's name, and refuses a name which has none.
EXTENSIONS = re.findall(
    r"\S+",
    """.c .cpp .css .csv .doc .docx .eml .go .h .htm .html .java .js .json .markdown .md .odt .pdf .php .ppt .pptx .py
    .rb .rst .rtf .sh .sql .srt .tex .text .ts .tsv .txt .vtt .xls .xlsx .xml .yaml .yml""",
)

FAULTS = {
    "429": "every request: refused for its rate, with Retry-After",
    "500": "every request: refused, nothing was done",
    "quota": "create a response: 429 insufficient_quota, which no retry cures",
    "lost": "create a file or a response, delete: done, but the reply never arrives",
    "failed": "create a response: it will end failed, server_error",
    "incomplete": "create a response: it will end incomplete, max_output_tokens",
}

Json = dict[str, Any]


class Refusal(Exception):
    """A request which is not granted, in the form of the service."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, kind: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message, "type": kind or "invalid_request_error", "param": param, "code": code}


@dataclass(slots=True)
class StoredFile:
    id: str
    name: str
    purpose: str
    content: bytes
    created_at: int
    expires_at: float  # infinite: never

    def view(self) -> Json:
        view = {"id": self.id, "object": "file", "filename": self.name, "purpose": self.purpose, "status": "processed"}
        expires_at = None if self.expires_at == math.inf else int(self.expires_at)
        return {**view, "bytes": len(self.content), "created_at": self.created_at, "expires_at": expires_at}


@dataclass(slots=True)
class StoredResponse:
    id: str
    background: bool
    metadata: dict[str, str]
    created_at: float
    begins_at: float  # queued before it
    ends_at: float  # in progress before it
    ending: str = "completed"  # the status from then on
    text: str = ""
    error: Json | None = None

    def status(self, now: float) -> str:
        return "queued" if now < self.begins_at else "in_progress" if now < self.ends_at else self.ending

    def view(self, status: str) -> Json:
        view: Json = {"id": self.id, "object": "response", "created_at": self.created_at, "status": status}
        view |= {"model": NOTICE, "background": self.background, "store": True, "metadata": self.metadata}
        view |= {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "usage": None, "output": []}
        view |= {"error": self.error if status == "failed" else None, "incomplete_details": None, "completed_at": None}
        if status == "completed":
            view["completed_at"] = self.ends_at
        if status == "incomplete":
            view["incomplete_details"] = {"reason": "max_output_tokens"}
        if status in ("completed", "incomplete"):
            part = {"type": "output_text", "text": self.text, "annotations": []}
            message = {"id": f"msg_{self.id}", "type": "message", "role": "assistant", "status": status}
            view["output"] = [{**message, "content": [part]}]
        return view


class OpenAIStandin:
    """The state of the service and its verbs; inside `with` also a server, in threads of this process.

    `faults` maps a kind to N: each Nth request which the kind applies to is hit (1: each), counted per kind, so that
    the same requests in the same order meet the same faults. What one kind refuses is not counted for the next.
    `clock` says the seconds since 1970: a test may hand in its own, and let files expire and responses end at will.
    `port` None: no server, no thread; whoever has the object calls `answer`.
    """

    def __init__(
        self,
        *,
        port: int | None = 0,
        seconds_queued: float = 0.5,
        seconds_reasoning: float = 1.5,
        seconds_retry_after: int = 1,
        faults: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._faults = dict(faults or {})
        for kind, every in self._faults.items():
            if kind not in FAULTS or every < 1:
                raise ValueError(f"fault {kind}:{every} is not KIND:EVERY, of {', '.join(FAULTS)} and a number from 1")
        self._seconds_queued, self._seconds_reasoning = seconds_queued, seconds_reasoning
        self.seconds_retry_after = seconds_retry_after
        self._clock = clock
        self._lock = threading.Lock()
        self._files: dict[str, StoredFile] = {}  # in order of creation
        self._responses: dict[str, StoredResponse] = {}
        self._names: Counter[str] = Counter()  # of every file created
        self._questions: Counter[str] = Counter()  # "process/item" of every response created
        self._statuses: Counter[str] = Counter()  # of deleted responses, when they were
        self._counts: Counter[str] = Counter()  # of everything else
        self._expires_next = math.inf  # no file does before
        self._server = None if port is None else _Server(self, port)
        self.base_url = f"http://{HOST}:{self._server.server_port}/v1" if self._server else f"http://{HOST}/v1"

    def __enter__(self) -> Self:
        if self._server is None:
            raise ValueError("it has no port: it is asked by `answer`, in this program")
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="openai-standin", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def report(self) -> Json:
        """What happened since the start. Also at GET /standin/report, beside /v1 and without a key.

        requests     all under /v1, refused ones too
        polls        those which retrieve a response
        faults       kind -> times injected, of the kinds ordered
        files        created: uploads done, also when the reply was lost; deleted: by a client; expired: by the clock;
                     left: ids still there; duplicates: name -> uploads, of names uploaded more than once
        responses    created, deleted, left: as of files; statuses: status -> responses, of all ever created, as it is
                     now or was when deleted; duplicates: "process/item" of the metadata -> responses, where there
                     were more than one (one asked anew after it failed counts too; one without both keys never does)
        """
        with self._lock:
            now = self._sweep()
            counts, faults = self._counts, {kind: self._counts[kind] // every for kind, every in self._faults.items()}
            statuses = self._statuses + Counter(response.status(now) for response in self._responses.values())
            files: Json = {kind: counts[f"files {kind}"] for kind in ("created", "deleted", "expired")}
            files |= {"left": list(self._files), "duplicates": _repeated(self._names)}
            responses: Json = {"created": counts["responses created"], "deleted": self._statuses.total()}
            responses |= {"left": list(self._responses), "duplicates": _repeated(self._questions)}
            responses |= {"statuses": dict(statuses)}
            report = {"standin": NOTICE, "requests": counts["requests"], "polls": counts["polls"], "faults": faults}
            return {**report, "files": files, "responses": responses}

    def answer(self, method: str, target: str, headers: Message, body: bytes) -> Json | None:
        """What the service would send back, or Refusal. None: it is done, but the reply is lost."""
        route = (method, *urlsplit(target).path.strip("/").split("/"))
        creates_response = route == ("POST", "v1", "responses")
        with self._lock:
            self._counts["requests"] += 1
            if not headers.get("Authorization", "").startswith("Bearer "):
                raise Refusal(401, "You didn't provide an API key in an Authorization header.")
            if self._hits("429"):
                raise Refusal(429, f"Rate limit reached ({NOTICE}).", None, "rate_limit_exceeded", "requests")
            if self._hits("500"):
                raise Refusal(500, f"The server had an error ({NOTICE}).", None, None, "server_error")
            if creates_response and self._hits("quota"):
                code = "insufficient_quota"
                raise Refusal(429, f"You exceeded your current quota ({NOTICE}).", None, code, code)
            done = self._perform(route, target, headers, body)
            may_lose = creates_response or route == ("POST", "v1", "files") or method == "DELETE"
            return None if may_lose and self._hits("lost") else done

    def _hits(self, kind: str) -> bool:
        self._counts[kind] += 1
        return kind in self._faults and self._counts[kind] % self._faults[kind] == 0

    def _sweep(self) -> float:
        """Let the files expire whose time is over; the time it is now."""
        now = self._clock()
        if now >= self._expires_next:
            for file in [file for file in self._files.values() if file.expires_at <= now]:
                self._drop_file(file, "expired")
            self._expires_next = min((file.expires_at for file in self._files.values()), default=math.inf)
        return now

    def _drop_file(self, file: StoredFile, why: str) -> None:
        del self._files[file.id]
        self._counts[f"files {why}"] += 1
        self._counts["bytes"] -= len(file.content)

    def _perform(self, route: tuple[str, ...], target: str, headers: Message, body: bytes) -> Json:
        now = self._sweep()
        match route:
            case ("POST", "v1", "files"):
                return self._create_file(*_form(headers.get("Content-Type", ""), body), now).view()
            case ("GET", "v1", "files"):
                return self._list_files(dict(parse_qsl(urlsplit(target).query)))
            case ("GET", "v1", "files", id):
                return self._file(id).view()
            case ("DELETE", "v1", "files", id):
                self._drop_file(self._file(id), "deleted")
                return {"id": id, "object": "file", "deleted": True}
            case ("POST", "v1", "responses"):
                response = self._create_response(_json_object(body), now)
                return response.view("queued" if response.background else response.ending)
            case ("GET", "v1", "responses", id):
                self._counts["polls"] += 1
                return self._response(id).view(self._response(id).status(now))
            case ("POST", "v1", "responses", id, "cancel"):
                return self._cancel(self._response(id), now).view("cancelled")
            case ("DELETE", "v1", "responses", id):
                self._statuses[self._response(id).status(now)] += 1
                del self._responses[id]
                return {"id": id, "object": "response", "deleted": True}
        raise Refusal(404, f"Invalid URL ({route[0]} {target}), or one which the stand-in lacks.")

    def _file(self, id: str) -> StoredFile:
        if id not in self._files:
            raise Refusal(404, f"No such File object: {id}", "id")
        return self._files[id]

    def _response(self, id: str) -> StoredResponse:
        if id not in self._responses:
            raise Refusal(404, f"Response with id '{id}' not found.")
        return self._responses[id]

    def _refuse_when_full(self, more_bytes: int = 0) -> None:
        created = self._counts["files created"] + self._counts["responses created"]
        if created >= OBJECTS_MAX or self._counts["bytes"] + more_bytes > STORED_BYTES_MAX:
            limits = f"{OBJECTS_MAX} objects in a life, {STORED_BYTES_MAX} bytes at once"
            raise Refusal(400, f"The stand-in is full ({limits}): start a new one.", code="standin_full")

    def _create_file(self, fields: Mapping[str, str], name: str, content: bytes, now: float) -> StoredFile:
        purpose = fields.get("purpose", "")
        _require(purpose in PURPOSES, f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'", "purpose")
        _require(0 < len(name) <= NAME_CHARS_MAX, f"A file's name has 1 to {NAME_CHARS_MAX} characters.", "file")
        lifetime = fields.get("expires_after[seconds]", str(LIFETIME_SECONDS_MAX) if purpose == "batch" else None)
        if lifetime is not None:
            fits = LIFETIME_SECONDS_MIN <= _number(lifetime) <= LIFETIME_SECONDS_MAX
            fits = fits and fields.get("expires_after[anchor]", "created_at") == "created_at"
            wanted = f"{LIFETIME_SECONDS_MIN} to {LIFETIME_SECONDS_MAX} seconds after created_at"
            _require(fits, f"Invalid 'expires_after': expected {wanted}.", "expires_after")
        self._refuse_when_full(len(content))
        expires_at = math.inf if lifetime is None else int(now) + int(lifetime)
        file = StoredFile(f"file-{secrets.token_hex(12)}", name, purpose, content, int(now), expires_at)
        self._files[file.id] = file
        self._expires_next = min(self._expires_next, expires_at)
        self._names[name] += 1
        self._counts["files created"] += 1
        self._counts["bytes"] += len(content)
        return file

    def _list_files(self, query: Mapping[str, str]) -> Json:
        limit, order = query.get("limit", str(LIST_MAX)), query.get("order", "desc")
        _require(1 <= _number(limit) <= LIST_MAX, f"Invalid 'limit': expected 1 to {LIST_MAX}.", "limit")
        _require(order in ("asc", "desc"), "Invalid 'order': expected 'asc' or 'desc'.", "order")
        files = list(self._files.values())[:: 1 if order == "asc" else -1]
        if "after" in query:
            files = files[files.index(self._file(query["after"])) + 1 :]
        files = [file for file in files if query.get("purpose", file.purpose) == file.purpose]
        data = [file.view() for file in files[: int(limit)]]
        first_id, last_id = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        page = {"object": "list", "data": data, "has_more": len(files) > len(data)}
        return {**page, "first_id": first_id, "last_id": last_id}

    def _create_response(self, body: Json, now: float) -> StoredResponse:
        background, metadata = body.get("background") is True, _metadata(body)
        _require(isinstance(body.get("model"), str), "Missing required parameter: 'model'.", "model")
        _require(body.get("store") is not False, "The stand-in stores every response.", "store")
        _require(not body.get("stream"), "The stand-in streams no response.", "stream")
        question, ids = _input(body)
        missing = [id for id in ids if id not in self._files]
        _require(not missing, f"Files [{', '.join(missing)}] were not found.", "input")
        files = [self._files[id] for id in ids]
        for file in files:
            _require_extension(PurePath(file.name).suffix.lower())
        self._refuse_when_full()
        begins_at = now + self._seconds_queued if background else now
        ends_at = begins_at + self._seconds_reasoning if background else now
        id = f"resp_{secrets.token_hex(24)}"
        response = self._responses[id] = StoredResponse(id, background, metadata, now, begins_at, ends_at)
        self._counts["responses created"] += 1
        if {"process", "item"} <= metadata.keys():
            self._questions[f"{metadata['process']}/{metadata['item']}"] += 1
        try:
            response.text = quote("\n\n".join(file.content.decode() for file in files), question)
        except UnicodeDecodeError:
            response.ending = "failed"
            response.error = {"code": "invalid_prompt", "message": "The stand-in reads UTF-8 text and nothing else."}
            return response
        if self._hits("failed"):
            response.ending, response.error = "failed", {"code": "server_error", "message": f"As ordered ({NOTICE})."}
        elif self._hits("incomplete"):
            response.ending, response.text = "incomplete", response.text[: len(response.text) // 2]
        return response

    def _cancel(self, response: StoredResponse, now: float) -> StoredResponse:
        status = response.status(now)
        _require(response.background, "Only responses created with background=true can be cancelled.")
        _require(status in ("queued", "in_progress", "cancelled"), f"Cannot cancel a {status} response.", "response_id")
        response.begins_at, response.ends_at, response.ending = now, now, "cancelled"
        return response


# The answer

STOP_WORDS = re.findall(
    r"\w+",
    """a about all also an and any are as at be been but by can could did do does for from had has have how i if in into
    is it its me more most no not of on or our please say says should so some such tell than that the their them then
    there these they this those to us was we were what when where which who why will with would you your""",
)


def quote(text: str, question: str) -> str:
    """The notice and at most QUOTED_MAX sentences of the text, each on a line, the nearest to the question first.

    A sentence scores for each word it shares with the question, the more the rarer the word is in the text, and a
    little for words frequent in the text. Of equals the earlier wins: the same input gives the same answer.
    """
    pieces = [" ".join(piece.split()) for piece in re.split(r"(?<=[.!?])\s+|\n\s*\n", text[:TEXT_CHARS_MAX])]
    full = [piece for piece in pieces if piece.endswith((".", "!", "?"))]  # rather than headings
    sentences = list(dict.fromkeys(full or filter(None, pieces)))
    words, asked = [_words(sentence) for sentence in sentences], _words(question)
    frequency = Counter(word for known in words for word in known)

    def score(known: frozenset[str]) -> float:
        near = math.fsum(math.log(1 + len(words) / frequency[word]) for word in asked & known)
        return near + sum(frequency[word] for word in known) / (1 + len(known)) / len(words)

    best = sorted(range(len(words)), key=lambda at: (-score(words[at]), at))[:QUOTED_MAX]
    quoted = [sentences[at][:QUOTED_CHARS_MAX] for at in best] or ["There is no text to quote."]
    return "\n".join([f"({NOTICE}; quoted from the text, nearest to the question first)", *quoted])


def _words(text: str) -> frozenset[str]:
    words = set(re.findall(r"[^\W_]+", text.lower())) - set(STOP_WORDS)
    return frozenset(word.rstrip("s") if len(word) > 3 else word for word in words)


# What a request holds


def _require(holds: bool, message: str, param: str | None = None) -> None:
    if not holds:
        raise Refusal(400, message, param)


def _require_extension(extension: str) -> None:
    wanted = f"Expected context stuffing file type to be a supported format: {', '.join(EXTENSIONS)}"
    _require(extension in EXTENSIONS, f"Invalid input: {wanted} but got {extension or 'none'}.", "input")


def _json_object(body: bytes) -> Json:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "We could not parse the JSON body of your request.") from error
    _require(isinstance(parsed, dict), "The JSON body of your request is not an object.")
    return dict(parsed)


def _form(content_type: str, body: bytes) -> tuple[dict[str, str], str, bytes]:
    """Fields, file name and file of a multipart form. By hand, since the `email` package may change line ends."""
    boundary = re.match(r'multipart/form-data;.*boundary="?([^";]+)', content_type, re.IGNORECASE)
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())[1:-1] if boundary else []
    fields: dict[str, str] = {}
    file: tuple[str, bytes] | None = None
    for head, _, content in (part.partition(b"\r\n\r\n") for part in parts):
        named = dict(re.findall(r';\s*(name|filename)="([^"]*)"', head.decode(errors="replace")))
        if "filename" in named:
            file = (named["filename"].replace("%22", '"').replace("\\\\", "\\"), content)
        else:
            fields[named.get("name", "")] = content.decode(errors="replace")
    if file is None:
        raise Refusal(400, "'file' is a required property of a multipart/form-data body.", "file")
    return fields, *file


def _metadata(body: Json) -> dict[str, str]:
    given = body.get("metadata") or {}
    fits = isinstance(given, dict) and len(given) <= METADATA_PAIRS_MAX
    fits = fits and all(isinstance(text, str) and len(text) <= METADATA_TEXT_CHARS_MAX for text in given.values())
    fits = fits and all(len(key) <= METADATA_KEY_CHARS_MAX for key in given)
    sizes = f"{METADATA_PAIRS_MAX} pairs, {METADATA_KEY_CHARS_MAX} characters a key, {METADATA_TEXT_CHARS_MAX} a text"
    _require(fits, f"Invalid 'metadata': expected at most {sizes}.", "metadata")
    return dict(given)


def _input(body: Json) -> tuple[str, list[str]]:
    """The question, and the ids of the files it is about."""
    given = body.get("input")
    questions: list[str] = []
    ids: list[str] = []
    _require(bool(given) and isinstance(given, str | list), "Missing required parameter: 'input'.", "input")
    for item in given if isinstance(given, list) else [{"content": given}]:
        content = item.get("content") if isinstance(item, dict) else None
        for part in content if isinstance(content, list) else [{"type": "input_text", "text": content}]:
            match part:
                case {"type": "input_text", "text": str(text)}:
                    questions.append(text)
                case {"type": "input_file", "file_id": str(id)}:
                    ids.append(id)
                case _:
                    raise Refusal(400, "The stand-in takes input_text, and input_file by its file_id.", "input")
    return "\n".join(questions), ids


def _repeated(counted: Counter[str]) -> dict[str, int]:
    return {name: times for name, times in counted.items() if times > 1}


def _number(digits: str) -> int:
    """-1 for what is no number, which no range allows."""
    return int(digits) if re.fullmatch("[0-9]{1,12}", digits) else -1


# HTTP, and a process of its own


class _Server(ThreadingHTTPServer):
    request_queue_size = THREADS_MAX

    def __init__(self, standin: OpenAIStandin, port: int) -> None:
        self.standin = standin
        super().__init__((HOST, port), _Handler)

    def verify_request(self, request: object, client_address: object) -> bool:
        return threading.active_count() < THREADS_MAX

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that was killed is no error of ours
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    protocol_version, server_version, sys_version = "HTTP/1.1", "onward-openai-standin", ""
    timeout = SILENCE_SECONDS_MAX
    disable_nagle_algorithm = True  # else head and body, sent apart, wait 40 ms for each other

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        standin = self.server.standin
        try:
            body = self._body()
            is_report = (self.command, self.path) == ("GET", "/standin/report")
            reply = standin.report() if is_report else standin.answer(self.command, self.path, self.headers, body)
        except Refusal as refusal:
            may_wait = refusal.body["code"] == "rate_limit_exceeded"
            wait = {"Retry-After": str(standin.seconds_retry_after)} if may_wait else {}
            self._send(refusal.status, {"error": refusal.body}, wait)
        else:
            self.close_connection = True
            if reply is not None:
                self._send(200, reply, {})

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def _body(self) -> bytes:
        left = _number(self.headers.get("Content-Length", "0"))
        if "Transfer-Encoding" in self.headers or left < 0:
            raise Refusal(411, "The stand-in needs a Content-Length.")
        if left > BODY_BYTES_MAX:
            while left > 0 and (read := self.rfile.read(min(left, 2**16))):  # a client listens once it has sent all
                left -= len(read)
            raise Refusal(413, f"The stand-in takes {BODY_BYTES_MAX} bytes at most.")
        body = self.rfile.read(left)
        if len(body) < left:
            raise ConnectionError("the client went away in the middle of a request")
        return body

    def _send(self, status: int, reply: Json, headers: dict[str, str]) -> None:
        content = json.dumps(reply).encode()
        self.send_response(status)
        # One request a connection: nobody can go on to use a connection after the server's end.
        headers |= {"Connection": "close", "Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in {**headers, "x-request-id": f"req_{secrets.token_hex(8)}"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the report tells it."""


def _is_orphan(parent: int) -> bool:
    """Has the parent ended, or closed the pipe it gave us as standard input? A terminal or a file says nothing."""
    if os.getppid() != parent:
        return True
    with suppress(OSError):  # there may be no standard input
        return stat.S_ISFIFO(os.fstat(0).st_mode) and bool(select.select([0], [], [], 0)[0]) and not os.read(0, 4096)
    return False


def main(argv: Sequence[str] | None = None) -> int:
    kinds = "\n".join(f"  {kind:11}{meaning}" for kind, meaning in FAULTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m onward.testing.openai_standin",
        description=f"OpenAI Files and Responses on loopback; {NOTICE}.",
        epilog=f"A fault hits each EVERYth request which its kind applies to:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--seconds-queued", type=float, default=0.5, metavar="S")
    parser.add_argument("--seconds-reasoning", type=float, default=1.5, metavar="S")
    parser.add_argument("--seconds-retry-after", type=int, default=1, metavar="S", help="what a 429 asks for")
    parser.add_argument("--fault", nargs="+", action="extend", default=[], metavar="KIND:EVERY", help="see below")
    parser.add_argument("--with-parent", action="store_true", help="end with the parent, or with its pipe to stdin")
    options = vars(parser.parse_args(argv))
    with_parent, parent = options.pop("with_parent"), os.getppid()
    ordered = (text.partition(":") for text in options.pop("fault"))
    faults = {kind: _number(every) for kind, _, every in ordered}
    try:
        standin = OpenAIStandin(faults=faults, **options)
    except ValueError as error:
        parser.error(str(error))
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on {HOST}:{options['port']}: {error}")
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append(received))
    with standin:
        sys.stdout.buffer.write(f"{NOTICE} · {standin.base_url}\n".encode())  # UTF-8, whatever the locale
        sys.stdout.buffer.flush()
        while not signals and not (with_parent and _is_orphan(parent)):
            time.sleep(WATCH_SECONDS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
