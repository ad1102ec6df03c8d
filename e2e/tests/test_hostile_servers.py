"""Servers that lie, stall, flood and say what no server says: the client gets a clean error or a closed connection,
nobody else notices, and what is sealed stays sealed.

In a sealed session a row leaves only through a mask bound to the server's own description, and that must be the
predicted one; so no lie of a server may bring `LEAK` to the client. Where nothing is sealed a server may say what it
likes, as long as it answers something.
"""

import contextlib
import os
import struct
from dataclasses import dataclass, field

import pytest

from lib import hostile, hostile_server, wire
from lib.gateway import PASS_THROUGH, Gateway, Shop
from lib.hostile import Watch
from lib.hostile_server import (
    BOUND, KEY, NO_DATA, PARSED, READY, WELCOME, Liar, complete, description, error, row, status,
)
from lib.hostile_server import field as column
from lib.postgres import SUPERUSER, Server
from lib.run import wait_until
from spine import POLICY

LEAK = "leaked-by-the-server"
SECRET = LEAK.encode()
MARK = "/* lie */"
SQL = f"SELECT id, email FROM customers ORDER BY id LIMIT 1 {MARK}"


@dataclass(frozen=True)
class Door:
    """A gateway whose server may be told to lie, and the way in."""

    gateway: object
    liar: object
    dsn: object
    sealed: bool
    honest: bytes = field(repr=False, default=b"")

    def watch(self, **options):
        return Watch(self.gateway, self.dsn, **options)


@pytest.fixture(scope="session")
def real(run, program):
    """Without TLS, so that the liar can read along."""
    server = Server(run, int(os.environ.get("EXEAT_E2E_PG", "15")), title="honest")
    return server, Shop(server)


@pytest.fixture(scope="session")
def doors(run, real, trust):
    server, shop = real
    opened = {}
    with contextlib.ExitStack() as stack:

        def door(name):
            if name not in opened:
                liar = stack.enter_context(Liar(server.port))
                sealed = name == "sealed"
                gateway = Gateway(run, f"lied-to-{name}").trust(trust.entry()).policy(POLICY if sealed else PASS_THROUGH)
                if sealed:
                    gateway.target(server, "shop", shop.logins())
                else:
                    login = [{"user": SUPERUSER, "password": server.password}]
                    gateway.target(server, "shop", login, allow_privileged_login=True)
                gateway.config["targets"]["shop"]["postgres"]["port"] = liar.port
                gateway.start(level="debug")
                dsn = gateway.dsn(trust.token("lied-to", ["agents"]))
                with hostile.session(dsn) as connection:
                    honest = dict(connection.cycle(wire.query(SQL)))["T"]
                opened[name] = Door(gateway, liar, dsn, sealed, wire.message("T", honest))
            return opened[name]

        yield door
        for door in opened.values():
            door.liar.is_honest()
            door.gateway.stop()


@pytest.fixture(params=["pass-through", "sealed"])
def door(request, doors):
    door = doors(request.param)
    yield door
    door.liar.is_honest()


@pytest.fixture
def sealed(doors):
    door = doors("sealed")
    yield door
    door.liar.is_honest()


def heard(door, script, *sent):
    """What the client of one session hears after login when the server lies to what it sent."""
    door.liar.tells(script, MARK.encode())
    with hostile.session(door.dsn) as connection:
        connection.send(*sent)
        return hostile.to_the_end(connection.socket)


def ends_cleanly(received):
    """Whole messages, and the last one is the error that ends the session."""
    said = hostile.messages(received)
    assert said and said[-1][0] == "E", said
    assert wire.error_fields(said[-1][1])["S"] == "FATAL", said
    return said


def ends(door, received):
    """As above; where bytes pass as they are the connection may also just end, wherever the server's words ended."""
    if door.sealed:
        return ends_cleanly(received)
    with contextlib.suppress(AssertionError):
        return hostile.messages(received)
    return []


# A client that has left is waited for, then its statement is cancelled and waited for, then the connection is closed.
ABANDONED_SECONDS = 20


def nobody_is_left(door, seconds=hostile.SECONDS_MAX):
    wait_until("the gateway leaves the liar", lambda: door.liar.lies_open() == 0, seconds=seconds)


def saying(*parts):
    """Says all of it, and waits."""

    def script(seat):
        seat.say(*parts)
        seat.stall()

    return script


def always(*parts):
    """Says all of it in answer to each message."""

    def script(seat):
        while True:
            seat.say(*parts)
            seat.hear()

    return script


def header(tag, length):
    return tag.encode() + struct.pack("!i", length)


ROW = row(b"1", SECRET)
DONE = complete() + READY
# What a server cannot answer a Query with. `None` stands for the honest description.
IMPOSSIBLE = {
    "a row without a description": [ROW, DONE],
    "a row after the end": [None, complete(), ROW],
    "a row after an error": [error("no"), ROW],
    "nothing but ReadyForQuery": [READY],
    "two ReadyForQuery": [None, ROW, DONE, READY],
    "a completion nobody waits for": [None, ROW, DONE, complete()],
    "a row nobody waits for": [None, ROW, DONE, ROW],
    "an answer to a Parse": [PARSED],
    "an answer to a Bind": [BOUND],
    "an answer to a Close": [wire.message("3")],
    "NoData": [NO_DATA],
    "a suspended portal": [None, ROW, wire.message("s")],
    "descriptions of parameters": [wire.message("t", b"\0\0")],
    "AuthenticationOk": [hostile_server.AUTHENTICATED],
    "a request for a password": [wire.message("R", struct.pack("!i", 3))],
    "keys": [KEY],
    "another protocol": [wire.message("v", struct.pack("!ii", 196608, 0))],
    "replication": [wire.message("W", b"\0\0\0")],
    "the result of a function": [wire.message("V", struct.pack("!i", -1))],
    "COPY data without a COPY": [wire.message("d", SECRET)],
    "the end of no COPY": [wire.message("c")],
    "a type nobody knows": [wire.message("y", SECRET)],
    "a client's message": [wire.query(LEAK)],
    "zeros": [b"\0" * 64],
    "another protocol altogether": [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "a length of zero": [header("D", 0)],
    "a length of three": [header("T", 3)],
    "a negative length": [None, header("D", -1)],
    "the most negative length": [header("E", -2**31)],
    "the longest length": [None, header("D", 2**31 - 1)],
    "an endless description": [header("T", 2**30)],
    "an endless ReadyForQuery": [header("Z", 2**30)],
    "an endless tag": [None, header("C", 2**30)],
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_server_says_ends_the_session(door, name):
    parts = [door.honest if part is None else part for part in IMPOSSIBLE[name]]
    with door.watch():
        said = ends(door, heard(door, saying(*parts), wire.query(SQL)))
        if door.sealed:
            assert SECRET not in b"".join(body for _, body in said)
    nobody_is_left(door)


def descriptions(door):
    """Descriptions that differ from the honest one in one thing each."""
    fields = split_fields(door.honest)
    (id_name, id_rest), (email_name, email_rest) = fields
    patched = lambda rest, at, raw: rest[:at] + raw + rest[at + len(raw):]  # noqa: E731
    one = (id_name, id_rest)
    variants = {
        "another name": [one, (b"mail", email_rest)],
        "no origin": [one, (email_name, patched(email_rest, 0, struct.pack("!ih", 0, 0)))],
        "the neighbour's origin": [one, (email_name, patched(email_rest, 4, struct.pack("!h", 1)))],
        "another type": [one, (email_name, patched(email_rest, 6, struct.pack("!i", 23)))],
        "a column more": [one, (email_name, email_rest), (b"more", email_rest)],
        "a column less": [one],
        "no column": [],
        "the columns exchanged": [(email_name, email_rest), one],
    }
    return {name: description(*(name + b"\0" + rest for name, rest in fields)) for name, fields in variants.items()}


def split_fields(message):
    body, fields = message[7:], []
    while body:
        name, rest = body.split(b"\0", 1)
        fields.append((name, rest[:18]))
        body = rest[18:]
    return fields


DESCRIPTIONS = ["another name", "no origin", "the neighbour's origin", "another type", "a column more", "a column less", "no column", "the columns exchanged"]


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_that_differs_releases_nothing(sealed, name):
    told = descriptions(sealed)[name]
    with sealed.watch():
        simple = heard(sealed, saying(told, ROW, DONE), wire.query(SQL))
        assert SECRET not in simple and b"D" not in [tag.encode() for tag, _ in ends_cleanly(simple)]
        for script in (saying(PARSED, BOUND, told, ROW, DONE), in_turn(told)):
            extended = heard(sealed, script, *EXTENDED)
            assert SECRET not in extended, extended
            ends_cleanly(extended)
    nobody_is_left(sealed)


EXTENDED = (wire.parse(SQL), wire.bind(), wire.describe(), wire.execute(), wire.SYNC)


def in_turn(told):
    """Answers each message of the extended protocol when it comes; Describe is answered with `told`."""
    answers = {"P": PARSED, "B": BOUND, "D": told, "E": ROW + complete(), "S": READY}

    def script(seat):
        seat.say(PARSED)
        while True:
            tag, _ = seat.hear()
            if tag in answers:
                seat.say(answers[tag])

    return script


# Rows that are not what the (honest) description says.
ROWS = {
    "a cell more": row(b"1", SECRET, SECRET),
    "a cell less": row(SECRET),
    "no cell": row(),
    "a cell longer than the row": wire.message("D", struct.pack("!Hi", 2, 1) + b"1" + struct.pack("!i", 1000) + SECRET),
    "a negative cell": wire.message("D", struct.pack("!Hi", 2, 1) + b"1" + struct.pack("!i", -2) + SECRET),
    "bytes behind the last cell": wire.message("D", struct.pack("!Hi", 2, 1) + b"1" + struct.pack("!i", -1) + SECRET),
    "a row without a count": wire.message("D"),
    "more cells than a table has": wire.message("D", struct.pack("!H", 65535) + SECRET),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_does_not_fit_its_description_is_not_released(sealed, name):
    with sealed.watch():
        received = heard(sealed, saying(sealed.honest, ROWS[name], DONE), wire.query(SQL))
        assert SECRET not in received, received
        ends_cleanly(received)


def test_rows_that_fit_are_masked_whatever_they_hold(sealed):
    with sealed.watch():
        sealed.liar.tells(saying(sealed.honest, ROW, ROW, DONE), MARK.encode())
        with hostile.session(sealed.dsn) as connection:
            said = connection.cycle(wire.query(SQL))
            assert [tag for tag, _ in said] == ["T", "D", "D", "C", "Z"] and SECRET not in b"".join(body for _, body in said)


# Ways around the rows, in answer to a statement that reads a sealed column.
ASIDES = {
    "an error": [error(LEAK, D=LEAK, H=LEAK, W=LEAK, t=LEAK, n=LEAK, d=LEAK), READY],
    "an error with fields nobody knows": [error("x", x=LEAK, y=LEAK), READY],
    "a fatal error": [error(LEAK, severity="FATAL", D=LEAK)],
    "a notice": [error(LEAK, severity="NOTICE", kind="N", D=LEAK), None, DONE],
    "a notification": [wire.message("A", struct.pack("!i", 1) + wire.cstring("c") + wire.cstring(LEAK)), None, DONE],
    "a second result": [None, ROW, complete(), None, ROW, DONE],
    "a second result of another kind": [None, complete(), description(column("a")), row(SECRET), DONE],
    "COPY out": [wire.message("H", b"\0\0\0"), wire.message("d", SECRET), wire.message("c"), DONE],
    "COPY in": [wire.message("G", b"\0\0\0"), error(LEAK), READY],
}


@pytest.mark.parametrize("name", ASIDES)
def test_nothing_leaves_beside_the_rows(sealed, name):
    parts = [sealed.honest if part is None else part for part in ASIDES[name]]
    with sealed.watch():
        sealed.liar.tells(saying(*parts), MARK.encode())
        with hostile.session(sealed.dsn) as connection:
            connection.send(wire.query(SQL), wire.TERMINATE)
            received = hostile.to_the_end(connection.socket)
        assert SECRET not in received, received
        hostile.messages(received)


# The extended protocol answered out of order: in both sessions nothing can be matched any more.
DISORDER = {
    "Bind before Parse": [BOUND, PARSED],
    "rows before Bind": [PARSED, ROW],
    "ReadyForQuery first": [READY, PARSED, BOUND],
    "the end first": [PARSED, complete()],
    "everything twice": [PARSED, PARSED, BOUND, BOUND],
}


@pytest.mark.parametrize("name", DISORDER)
def test_answers_out_of_order_end_the_session(door, name):
    with door.watch():
        received = heard(door, saying(*DISORDER[name]), *EXTENDED)
        assert SECRET not in received, received
        ends(door, received)
    nobody_is_left(door)


def test_rows_of_a_statement_that_was_said_to_have_none_are_not_released(sealed):
    with sealed.watch():
        received = heard(sealed, saying(PARSED, BOUND, NO_DATA, ROW, DONE), *EXTENDED)
        assert SECRET not in received, received
        ends_cleanly(received)


FLOODS = [("pass-through", "notices"), ("sealed", "notices"), ("sealed", "settings"), ("sealed", "notifications")]


@pytest.mark.parametrize(("door", "say"), FLOODS, indirect=["door"])
def test_a_flood_waits_where_it_is_when_nobody_reads(door, say):
    """The client does not read; what the server says is not collected for it. When it leaves, the flood ends."""
    piece = {
        "notices": error("n" * 1000, severity="NOTICE", kind="N"),
        "settings": status("TimeZone", "x" * 1000),
        "notifications": wire.message("A", struct.pack("!i", 1) + wire.cstring("c") + wire.cstring("x" * 1000)),
    }[say] * 64
    with door.watch(memory=48 * 2**20) as watch:
        door.liar.tells(lambda seat: seat.flood(piece), MARK.encode())
        connection = hostile.session(door.dsn)
        connection.send(wire.query(SQL))
        for _ in range(100):
            watch.bystander_works()
        hostile.reset(connection.socket)
        nobody_is_left(door, ABANDONED_SECONDS)


def test_an_announced_gigabyte_costs_nothing_until_it_comes(door):
    with door.watch(memory=48 * 2**20) as watch, contextlib.ExitStack() as stack:
        for tag in "DEN":
            parts = ([door.honest] if tag == "D" else []) + [header(tag, 2**30), b"x" * 2**20]
            door.liar.tells(saying(*parts), MARK.encode())
            connection = stack.enter_context(hostile.session(door.dsn))
            told = door.liar.told
            connection.send(wire.query(SQL))
            wait_until("the lie is told", lambda told=told: door.liar.told > told, seconds=hostile.SECONDS_MAX)
            for _ in range(20):
                watch.bystander_works()
            hostile.reset(connection.socket)
        nobody_is_left(door, ABANDONED_SECONDS)


def test_a_server_may_leave_at_any_byte_of_its_answer(door):
    answer = door.honest + row(b"1", b"x") + DONE
    with door.watch():
        for cut in range(0, len(answer), 3):
            received = heard(door, lambda seat, cut=cut: seat.say(answer[:cut]), wire.query(SQL))
            said = ends(door, received)
            assert not door.sealed or wire.error_fields(said[-1][1])["C"] == "57P01", (cut, received)
    nobody_is_left(door)


# A login that goes wrong, said at once when the gateway has sent its startup packet.
LOGINS = {
    "nothing and gone": [],
    "a type nobody knows": [b"y\0\0\0\4"],
    "a length that lies": [header("R", 3)],
    "an endless challenge": [header("R", 2**20)],
    "a method nobody has": [wire.message("R", struct.pack("!i", 99))],
    "SASL without a mechanism": [wire.message("R", struct.pack("!i", 10) + b"\0")],
    "SASL that nobody began": [wire.message("R", struct.pack("!i", 12) + b"v=x")],
    "ready before login": [READY],
    "a row before login": [ROW],
    "an error": [error(LEAK, severity="FATAL", code="28P01")],
    "a login without a key": [WELCOME.replace(KEY, b"")],
    "a login without a version": [hostile_server.AUTHENTICATED + KEY + READY],
    "a key without an end": [hostile_server.AUTHENTICATED + wire.message("K", b"\0\0\0\1" + b"k" * 300)],
}


@pytest.mark.parametrize("name", LOGINS)
def test_a_login_that_goes_wrong_is_told_without_its_reason(door, name):
    with door.watch():
        door.liar.tells(lambda seat: seat.say(*LOGINS[name]))
        received = login_bytes(door)
        assert SECRET not in received
        ends_cleanly(received)
    door.liar.is_honest()
    nobody_is_left(door)


def login_bytes(door, seconds=hostile.SECONDS_MAX):
    with hostile.raw(door.dsn) as peer:
        peer.settimeout(seconds)
        peer.sendall(hostile.startup_packet(door.dsn) + wire.message("p", wire.cstring(door.dsn.password)))
        return hostile.to_the_end(peer, seconds)


@pytest.mark.parametrize("piece", [error("n", severity="NOTICE", kind="N"), status("a", "b" * 1000)], ids=["notices", "settings"])
def test_a_login_that_never_ends_is_cut_short(door, piece):
    with door.watch(memory=32 * 2**20):
        door.liar.tells(lambda seat: seat.flood(hostile_server.AUTHENTICATED * (b"S" == piece[:1]) + piece * 64))
        ends_cleanly(login_bytes(door))
    door.liar.is_honest()
    nobody_is_left(door)


# The gateway's own questions in a sealed session, told apart by their texts.
STATE = b"current_schemas"
OWN = {
    "no answer that fits": [PARSED, BOUND, complete(), wire.message("3"), wire.message("3"), READY],
    "rows without end": [PARSED, BOUND, *[row(SECRET)] * 100],
    "a row of another shape": [PARSED, BOUND, row(SECRET), complete(), wire.message("3"), wire.message("3"), READY],
    "another order": [BOUND, PARSED],
    "an error": [error(LEAK), READY],
}


@pytest.mark.parametrize("name", OWN)
def test_lies_to_the_gateways_own_question_open_no_session(sealed, name):
    with sealed.watch():
        sealed.liar.tells(saying(*OWN[name]), STATE)
        received = login_bytes(sealed)
        assert SECRET not in received and READY not in received, received
        ends_cleanly(received)
    sealed.liar.is_honest()
    nobody_is_left(sealed)


@pytest.fixture
def fresh(run, real, trust):
    """A sealed gateway that has read no catalog yet, and its liar."""
    server, shop = real
    with Liar(server.port) as liar:
        gateway = Gateway(run, "catalog-of-lies").trust(trust.entry()).policy(POLICY)
        gateway.target(server, "shop", shop.logins())
        gateway.config["targets"]["shop"]["postgres"]["port"] = liar.port
        gateway.start()
        yield Door(gateway, liar, gateway.dsn(trust.token("lied-to", ["agents"])), sealed=True)
        liar.is_honest()
        gateway.stop()


# Where a server may stop during a login, and what it says before.
STALLS = {
    "at once": (None, []),
    "inside its first message": (None, [b"R\0\0"]),
    "when it has asked for a password": (None, [wire.message("R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0")]),
    "before it is ready": (None, [WELCOME[:-len(READY)]]),
    "at the gateway's own question": (STATE, [PARSED]),
}


@pytest.fixture(scope="session", autouse=True)
def stalled(doors):
    """Clients whose logins the server stalls, from the first test of this file on."""
    door, peers = doors("sealed"), {}
    for name, (trigger, parts) in STALLS.items():
        told = door.liar.told
        door.liar.tells(saying(*parts), trigger, apart=True)
        peers[name] = hostile.raw(door.dsn)
        peers[name].sendall(hostile.startup_packet(door.dsn) + wire.message("p", wire.cstring(door.dsn.password)))
        wait_until("the lie is told", lambda told=told: door.liar.told > told)
    door.liar.is_honest()
    yield peers
    for peer in peers.values():
        peer.close()


@pytest.mark.late
def test_a_login_that_the_server_stalls_ends(sealed, stalled):
    with sealed.watch():
        for peer in stalled.values():
            peer.settimeout(30)
            ends_cleanly(hostile.to_the_end(peer, 30))
    nobody_is_left(sealed)


CATALOG = b"pg_attribute"
# What one reading may hold at most (its own bound is 256 MiB), and the program.
CATALOG_BYTES_MAX = 512 * 2**20
CATALOGS = {
    "nothing": [complete(), READY],
    "a table of nonsense": [description(column("x")), row(SECRET), DONE],
    "no text": [description(column("x")), row(b"\xff\xfe"), DONE],
    "an error": [error(LEAK), READY],
    "another protocol": [PARSED],
    "rows of a thousand NULLs": [wire.message("D", struct.pack("!H", 1664) + struct.pack("!i", -1) * 1664) * 50_000, DONE],
}


def test_a_catalog_of_lies_opens_no_session(fresh):
    """One after the other, and then the truth, which does."""
    pid = fresh.gateway.process.pid
    for name, parts in CATALOGS.items():
        fresh.liar.tells(always(*parts), CATALOG)
        received = login_bytes(fresh)
        assert SECRET not in received and READY not in received, (name, received)
        ends_cleanly(received)
        assert hostile.resident(pid, "VmHWM") < CATALOG_BYTES_MAX, name
    fresh.liar.is_honest()
    with fresh.watch():
        pass
    assert "panicked" not in fresh.gateway.log_text()
