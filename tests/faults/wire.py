"""The protocol of PostgreSQL, as far as somebody has to know it who stands in the middle: messages, requests, answers, SQL."""

from __future__ import annotations

import struct
from collections.abc import Iterator

CANCEL, SSL, GSS = 80877102, 80877103, 80877104  # what a client may say before its greeting
ENCRYPTED = (b"S", b"G")
MESSAGE_BYTES_MAX = 64 << 20


class Dialogue:
    """What the two ends of a connection say: cuts both streams into messages, and knows the SQL that a message executes.

    A request is what the client says up to a Sync, or a simple query; the server closes its answer to each by a
    ReadyForQuery. The greeting counts as the request 0. Once it is `opaque`, because it is encrypted or a message is longer
    than the limit, it passes as it comes.
    """

    def __init__(self) -> None:
        self.request = 0
        self.answer = 0
        self.opaque = False
        self._greeting = True
        self._one_byte_answers = 0
        self._said = bytearray()
        self._heard = bytearray()
        self._statements: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}

    def up(self, data: bytes) -> Iterator[tuple[bytes, str | None]]:
        """The messages that are complete, each with the SQL that it executes; the request they belong to is `request`."""
        self._said += data
        while (message := self._cut(self._said, typed=not self._greeting)) is not None:
            sql = None if self._greeting or self.opaque else self._executed(message)
            yield message, sql
            self._after(message)

    def down(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete; the answer they belong to is `answer`."""
        self._heard += data
        if self._one_byte_answers and self._heard:
            self._one_byte_answers -= 1
            yes_or_no = bytes(self._heard[:1])
            del self._heard[:1]
            self.opaque = self.opaque or yes_or_no in ENCRYPTED
            yield yes_or_no
        while (message := self._cut(self._heard, typed=True)) is not None:
            yield message
            self.answer += message[:1] == b"Z"

    def _cut(self, stream: bytearray, *, typed: bool) -> bytes | None:
        head = 5 if typed else 4
        if not self.opaque and len(stream) < head:
            return None
        size = len(stream) if self.opaque else struct.unpack_from("!I", stream, head - 4)[0] + typed
        if not self.opaque and not (5 if typed else 8) <= size <= MESSAGE_BYTES_MAX:
            self.opaque, size = True, len(stream)
        if len(stream) < size or not stream:
            return None
        message = bytes(stream[:size])
        del stream[:size]
        return message

    def _executed(self, message: bytes) -> str | None:
        kind, body = message[:1], message[5:]
        match kind:
            case b"Q":
                return _text(body)
            case b"P":
                name, _, rest = body.partition(b"\0")
                self._statements[name] = _text(rest)
            case b"B":
                portal, _, rest = body.partition(b"\0")
                self._portals[portal] = self._statements.get(rest.partition(b"\0")[0], "")
            case b"E":
                return self._portals.get(body.partition(b"\0")[0], "")
        return None

    def _after(self, message: bytes) -> None:
        if self.opaque:
            return
        if not self._greeting:
            self.request += message[:1] in (b"Q", b"S", b"F")
            return
        code = struct.unpack_from("!I", message, 4)[0] if len(message) >= 8 else 0
        if code in (SSL, GSS):
            self._one_byte_answers += 1
        elif code != CANCEL:
            self._greeting = False
            self.request += 1


def _text(body: bytes) -> str:
    return body.partition(b"\0")[0].decode("utf-8", "replace")


def committed(answer: bytes | bytearray) -> bool:
    """Whether this answer, of whole messages, says that something is committed now: no error, no open transaction."""
    at, done = 0, False
    while at < len(answer):
        kind, size = answer[at : at + 1], struct.unpack_from("!I", answer, at + 1)[0]
        body = answer[at + 5 : at + 1 + size]
        if kind == b"E" or (kind == b"C" and body.startswith(b"ROLLBACK")):
            return False
        done = done or kind in (b"C", b"s")  # s: not all rows were asked for; what it had to write it wrote
        if kind == b"Z" and body != b"I":
            return False
        at += 1 + size
    return done
