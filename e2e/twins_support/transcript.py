"""One unit of statements on one session, and everything the client was sent for it, byte by byte."""

import json
import re
import struct
from dataclasses import dataclass, field

from lib import wire

MODES = ("simple", "text", "binary")
TIMED_OUT = "57014"
BEGIN, ROLLBACK, DEALLOCATE = wire.query("BEGIN"), wire.query("ROLLBACK"), wire.query("DEALLOCATE ALL")
COPY_IN = re.compile(r"\bfrom\s+stdin\b", re.I)
# Numbers of ours for a person to quote: new at every statement.
IDENTIFIERS = re.compile(rb"\b(req_|ses_|correlation id )[a-z0-9_]+")


@dataclass
class Unit:
    """What runs in one transaction that is rolled back. `safe`: nothing of it touches a sealed value, by construction.
    `batch`: several statements in one message."""

    source: str
    statements: list
    safe: bool = False
    mode: str = "simple"
    copy_data: bytes = b""
    form: str = ""
    batch: bool = False

    def text(self):
        return ";\n".join(self.statements)


@dataclass
class Transcript:
    messages: list = field(default_factory=list)
    verdict: str = "admitted"
    code: str = ""
    # Of each statement, the columns that the server announced first; none where it announced none.
    outputs: list = field(default_factory=list)


class Session:
    """A client's connection that is made again when a statement ended it."""

    def __init__(self, connect, normal):
        self._connect, self._normal = connect, normal
        self._connection = None

    def renew(self):
        """Another connection: another port, another process, another start."""
        if self._connection is not None:
            self._connection.socket.close()
            self._connection = None

    def run(self, unit):
        """The transcript of the unit. Its verdict is the worst answer of its statements."""
        seen = Transcript()
        try:
            if self._connection is None:
                self._connection = self._connect()
            for number, sql in enumerate(unit.statements):
                ahead = [BEGIN] if number == 0 else []
                behind = [ROLLBACK] if number == len(unit.statements) - 1 else []
                self._statement(sql, unit, seen, ahead, behind)
            if any(sql[:7].upper() == "PREPARE" for sql in unit.statements):
                self._cycle(DEALLOCATE)
        except (wire.Closed, ConnectionError, wire.LoginRefused) as problem:
            seen.messages.append(("closed", type(problem).__name__.encode()))
            seen.verdict = "closed"
            self._connection = None
        return seen

    def _cycle(self, *requests, data=b"", answered_copy=b""):
        """Sends all of them and gives the answers to each, up to its ReadyForQuery; a COPY from the client gets `data`
        and its end. One journey for several requests: most of a run is waiting."""
        self._connection.send(*requests)
        return [self._answer(data, answered_copy) for _ in requests]

    def _answer(self, data, answered_copy):
        messages = []
        while not messages or messages[-1][0] != "Z":
            messages.append(self._connection.receive())
            if messages[-1][0] == "G":
                self._connection.send(*([wire.message("d", data)] if data else []), wire.message("c"), answered_copy)
        return messages

    def _statement(self, sql, unit, seen, ahead, behind):
        request, answered_copy = wire.query(sql), b""
        if unit.mode != "simple":
            formats = (1,) if unit.mode == "binary" else ()
            parts = [wire.parse(sql), wire.bind(result_formats=formats), wire.describe(), wire.execute(), wire.SYNC]
            # The server drops a Sync that reaches it while it waits for the client's rows.
            request, answered_copy = b"".join(parts), wire.SYNC
        if COPY_IN.search(sql):
            # What follows would be taken for its rows.
            answers = [*self._cycle(*ahead, request, data=unit.copy_data, answered_copy=answered_copy)]
            answers += self._cycle(*behind) if behind else []
        else:
            answers = self._cycle(*ahead, request, *behind)
        own, *rest = answers[len(ahead):]
        seen.outputs.append(next((row_description(body) for tag, body in own if tag == "T"), []))
        self._note(own, seen)
        for answer in rest:
            self._note(answer, seen)

    def _note(self, messages, seen):
        for tag, body in messages:
            seen.messages.append((tag, IDENTIFIERS.sub(rb"\1", self._normal(body))))
            if tag == "E" and seen.verdict == "admitted":
                seen.verdict, seen.code = judge(wire.error_fields(body))


def judge(fields):
    """An error of the gateway's own, of the server, or the end of the time a statement has."""
    if fields.get("C") == TIMED_OUT:
        return "timed out", TIMED_OUT
    try:
        detail = json.loads(fields.get("D", ""))
        return "refused", f"{detail['code']}: {detail['reason']}"
    except (ValueError, KeyError, TypeError):
        return "failed", f"{fields.get('C')}: {fields.get('M')}"


def row_description(body):
    """(name, table, attribute, type) of each column."""
    count, at, columns = struct.unpack("!h", body[:2])[0], 2, []
    for _ in range(count):
        end = body.index(b"\0", at)
        table, attribute, kind = struct.unpack("!ihi", body[end + 1:end + 11])
        columns.append((body[at:end].decode(errors="replace"), table & 0xFFFFFFFF, attribute, kind & 0xFFFFFFFF))
        at = end + 19
    return columns


def same_rows(first, second):
    """Whether two transcripts differ in nothing but the order of rows."""
    return sorted(first.messages) == sorted(second.messages)


def difference(first, second):
    """Where two transcripts part, in words; None where they are equal."""
    if first.messages == second.messages:
        return None
    for number, (one, other) in enumerate(zip(first.messages, second.messages)):
        if one != other:
            return f"message {number}: {one[0]} {one[1][:400]!r}\n      against: {other[0]} {other[1][:400]!r}"
    return f"{len(first.messages)} messages against {len(second.messages)}"
