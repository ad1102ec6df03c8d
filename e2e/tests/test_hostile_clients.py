"""Clients that split, lie, disorder, flood, stall and leave: a clean error or a closed connection, and nobody else notices."""

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field

import psycopg
import pytest

from lib import hostile, wire
from lib.hostile import Watch
from lib.relay import Relay
from lib.run import wait_until
from test_record import lines as record_lines

SEED = 20260101


@dataclass(frozen=True)
class Door:
    """A gateway, a way in, and the same database past it."""

    gateway: object
    dsn: object
    direct: object = field(repr=False)

    def watch(self, **options):
        return Watch(self.gateway, self.dsn, **options)


@pytest.fixture(scope="session")
def doors(request, trust, server, shop):
    def door(name):
        if name == "pass-through":
            gateway = request.getfixturevalue("through")
            return Door(gateway, gateway.dsn(trust.token("hostile", ["agents"])), server.admin("shop"))
        if name == "sealed":
            gateway = request.getfixturevalue("plain")
            return Door(gateway, gateway.dsn(trust.token("hostile", ["agents"])), shop.reader)
        gateway = request.getfixturevalue("gateway")
        return Door(gateway, request.getfixturevalue("agent"), shop.reader)

    return door


@pytest.fixture(params=["pass-through", "sealed"])
def door(request, doors):
    return doors(request.param)


@pytest.fixture(params=["pass-through", "sealed", "sealed over TLS"])
def any_door(request, doors):
    return doors(request.param)


def comparable(tag, body):
    """Errors by what a program reads of them: a refusal has an id of its own, and who says a thing words it."""
    if tag in "EN":
        fields = wire.error_fields(body)
        return tag, fields["V"], fields["C"]
    return tag, body


# A little of everything, and it leaves the session as it found it.
TRANSCRIPT = [
    wire.parse("SELECT id, email FROM customers WHERE id = $1", "s", [23]) + wire.describe("S", "s") + wire.SYNC,
    wire.bind("p", "s", ["1"]) + wire.describe("P", "p") + wire.execute("p") + wire.FLUSH + wire.SYNC,
    wire.query("SELECT 1; SELECT nope"),
    wire.parse("SELECT * FROM hr.salaries") + wire.bind() + wire.execute() + wire.close("S", "s") + wire.SYNC,
    wire.close("S", "s") + wire.SYNC,
]
BLOB = b"".join(TRANSCRIPT)


def answers(connection, cycles=len(TRANSCRIPT)):
    return [comparable(*message) for _ in range(cycles) for message in connection.receive_until("Z")]


def test_a_session_cut_at_any_byte_is_the_same_session(door):
    with door.watch(), hostile.session(door.dsn) as connection:
        connection.send(BLOB)
        whole = answers(connection)
        for cut in range(1, len(BLOB)):
            hostile.send_apart(connection.socket, BLOB[:cut], BLOB[cut:])
            assert answers(connection) == whole, f"cut at {cut}"


def test_a_session_in_single_bytes_is_the_same_session(any_door):
    with any_door.watch(), hostile.session(any_door.dsn) as connection:
        connection.send(BLOB)
        whole = answers(connection)
        hostile.send_apart(connection.socket, *(BLOB[at:at + 1] for at in range(len(BLOB))))
        assert answers(connection) == whole


def test_a_login_cut_at_any_byte_is_a_login(door):
    login = hostile.startup_packet(door.dsn)
    password = wire.message("p", wire.cstring(door.dsn.password))
    login += password
    ends = [*range(1, len(login) - len(password) + 8), len(login) - 1]
    with door.watch():
        for cut in ends:
            with hostile.raw(door.dsn) as peer:
                hostile.send_apart(peer, login[:cut], login[cut:] + wire.TERMINATE)
                tags = "".join(tag for tag, _ in hostile.messages(hostile.to_the_end(peer)))
                assert tags.startswith("RR") and tags.endswith("KZ"), (cut, tags)


# What no client says: shorter than its own length field, negative, or longer than any limit.
LENGTHS = [0, 1, 3, -1, -2**31, 2**31 - 1, 2**30 + 1024]


@pytest.mark.parametrize("tag", list("QPBDECSHXdcfFp"))
def test_a_length_that_lies_is_refused_by_the_header_alone(door, tag):
    with door.watch():
        for length in LENGTHS:
            with hostile.session(door.dsn) as connection:
                connection.send(tag.encode() + struct.pack("!i", length))
                assert refused(hostile.to_the_end(connection.socket)), (tag, length)


def refused(received):
    """One error that ends the connection, and nothing else."""
    [(tag, body)] = hostile.messages(received)
    fields = wire.error_fields(body)
    return (tag, fields["S"], fields["C"]) == ("E", "FATAL", "08P01")


# Well framed, and the content is shorter, longer or other than it says.
CONTENTS = {
    "a Query without its end": wire.message("Q", b"SELECT 1"),
    "a Query with two ends": wire.message("Q", b"SELECT 1\0SELECT 2\0"),
    "an empty Query message": wire.message("Q"),
    "text that is not UTF-8": wire.message("Q", b"SELECT '\xff\xfe'\0"),
    "a Parse that promises types": wire.message("P", b"\0SELECT 1\0\x7f\xff"),
    "a Bind that promises parameters": wire.message("B", b"\0\0\0\0\xff\xff"),
    "a Bind with a value of length -2": wire.message("B", b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
    "a Bind with a value past its end": wire.message("B", b"\0\0\0\0\0\x01\x7f\xff\xff\xffx\0\0"),
    "a Bind with a third format": wire.message("B", b"\0\0\0\x01\0\x02\0\0\0\0"),
    "a Describe of neither": wire.message("D", b"X\0"),
    "a Close of nothing": wire.message("C"),
    "an Execute without a count": wire.message("E", b"\0"),
    "a Sync with content": wire.message("S", b"x"),
    "a Flush with content": wire.message("H", b"x"),
    "a function call cut short": wire.message("F", b"\0\0"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_that_is_not_what_it_says_is_an_error(door, name):
    """PostgreSQL goes on after some of these and not after others; the gateway may do either, but says so."""
    with door.watch():
        [heard] = conversation(door.dsn, [CONTENTS[name]])
        assert heard[0][0] == "E", heard
        assert heard[0][1] == "ERROR" or heard == [("E", "FATAL", "08P01"), "closed"], heard


# What each is answered with is compared with PostgreSQL itself.
DISORDER = {
    "Bind before Parse": wire.bind(statement="never") + wire.execute() + wire.SYNC,
    "Execute of an unknown portal": wire.execute("never") + wire.SYNC,
    "Describe of what is not there": wire.describe("S", "never") + wire.SYNC + wire.describe("P", "never") + wire.SYNC,
    "Close of what is not there": wire.close("S", "never") + wire.close("P", "never") + wire.SYNC,
    "COPY data outside a COPY": wire.message("d", b"1\n") + wire.message("c") + wire.message("f", b"no\0"),
    "Parse of a name twice": wire.parse("SELECT 1", "t") + wire.parse("SELECT 2", "t") + wire.SYNC + wire.close("S", "t") + wire.SYNC,
    "a name that does not change": (
        wire.parse("SELECT id FROM orders WHERE id = 1", "n") + wire.SYNC + wire.parse("SELECT 2", "n") + wire.SYNC
        + wire.bind(statement="n") + wire.describe() + wire.execute() + wire.SYNC
    ),
    "a name that is not closed": (
        wire.parse("SELECT id FROM orders WHERE id = 1", "n") + wire.SYNC + wire.parse("SELEC") + wire.close("S", "n") + wire.SYNC
        + wire.describe("S", "n") + wire.bind(statement="n") + wire.execute() + wire.SYNC
    ),
    "the unnamed statement that does not change": (
        wire.parse("SELECT id FROM orders WHERE id = 1") + wire.SYNC + wire.parse("SELEC", "n") + wire.parse("SELECT 2") + wire.SYNC
        + wire.bind() + wire.describe() + wire.execute() + wire.SYNC
    ),
    "a portal that does not change": (
        wire.query("BEGIN") + wire.parse("SELECT id FROM orders WHERE id = 1") + wire.bind("p") + wire.SYNC + wire.query("SAVEPOINT s")
        + wire.parse("SELECT 2") + wire.bind("p") + wire.SYNC + wire.query("ROLLBACK TO s") + wire.execute("p") + wire.SYNC
    ),
    "Queries that are skipped": (
        wire.parse("SELECT 1", "n") + wire.SYNC + wire.parse("SELECT 2", "n")
        + wire.query("SELECT 3") + wire.query("SELEC") + wire.query("SELECT 4") + wire.SYNC
    ),
    "nothing at all in a failed block": wire.query("BEGIN") + wire.query("SELEC") + wire.query("") + wire.query("ROLLBACK"),
    "a portal twice": wire.parse("SELECT 1") + wire.bind("p") + wire.bind("p") + wire.SYNC,
    "Execute after the end": wire.parse("SELECT 1") + wire.bind() + wire.execute() + wire.execute() + wire.SYNC,
    "Execute without rows": wire.parse("") + wire.bind() + wire.execute() + wire.SYNC,
    "too few parameters": wire.parse("SELECT id FROM orders WHERE id = $1") + wire.bind() + wire.SYNC,
    "too many parameters": wire.parse("SELECT 1") + wire.bind(values=["1"]) + wire.SYNC,
    "a Query in an open batch": wire.parse("SELECT 1") + wire.bind() + wire.query("SELECT 2") + wire.execute() + wire.SYNC,
    "a Query in a failed batch": wire.parse("SELEC") + wire.query("SELECT 2") + wire.SYNC,
    "a Sync storm": wire.SYNC * 5000,
    "a Flush flood": wire.FLUSH * 50_000,
    "Syncs and empty queries": (wire.SYNC + wire.query("")) * 500,
    "a batch that never ends": wire.parse("SELECT 1") + (wire.bind() + wire.execute()) * 3000 + wire.SYNC,
}


@pytest.mark.parametrize("name", DISORDER)
def test_messages_in_disorder_are_answered_as_by_postgresql(door, name):
    with door.watch():
        expected = conversation(door.direct, [DISORDER[name]])
        assert conversation(door.dsn, [DISORDER[name]]) == expected


def test_the_record_of_a_bind_names_the_text_that_runs(door):
    """Also when the client gives the name another text, which fails, and does not wait to hear of it."""
    first, second = "SELECT 'first'", "SELECT 'second'"
    with door.watch(), hostile.session(door.dsn) as connection:
        connection.cycle(wire.parse(first, "n") + wire.SYNC)
        connection.send(wire.parse(second, "n") + wire.SYNC + wire.bind(statement="n") + wire.execute() + wire.SYNC)
        failed, ran = connection.receive_until("Z"), connection.receive_until("Z")
        assert [tag for tag, _ in failed] == ["E", "Z"] and dict(ran)["D"].endswith(b"first")
    named = [entry["body"] for entry in record_lines(door.gateway) if entry["body"].get("name") == "n"]
    parsed, refused, bound = named[-3:]
    assert bound["digest"] == parsed["digest"] != refused["digest"], named[-3:]


MARK = "4711"


def conversation(dsn, scripts):
    """The answers to each script; a marked query shows where they end. A closed connection ends all of it."""
    with hostile.session(dsn) as connection:
        heard = []
        for number, script in enumerate(scripts):
            mark = f"{MARK}{number}"
            send_quietly(connection, script, wire.SYNC, wire.query("ROLLBACK"), wire.query(f"SELECT '{mark}'"))
            heard.append(until_mark(connection, mark))
            if heard[-1][-1] == "closed":
                break
        return heard


def send_quietly(connection, *data):
    with contextlib.suppress(OSError):
        connection.send(*data)


def until_mark(connection, mark):
    heard, marked = [], False
    while True:
        try:
            tag, body = connection.receive()
        except (wire.Closed, ConnectionError):
            return [*heard, "closed"]
        heard.append(comparable(tag, body) if tag in "EN" else (tag, body) if tag in "DCZI" else tag)
        marked |= tag == "D" and body.endswith(mark.encode())
        if marked and tag == "Z":
            return heard


STATEMENTS = [
    "SELECT 1", "SELECT id FROM orders ORDER BY id LIMIT 3", "SELECT id FROM orders WHERE id = $1", "BEGIN", "COMMIT",
    "ROLLBACK", "SELECT 1/0", "SELEC", "", "SELECT nope", "SELECT 1; SELECT 2",
]
NAMES = ["", "a", "b"]


def random_script(dice):
    """Between one and sixteen messages, most of them in an order that makes sense."""
    script = b""
    for _ in range(dice.of(range(1, 17))):
        script += dice.of([
            lambda: wire.parse(dice.of(STATEMENTS), dice.of(NAMES)),
            lambda: wire.parse(dice.of(STATEMENTS), dice.of(NAMES)),
            lambda: wire.bind(dice.of(NAMES), dice.of(NAMES), dice.of([[], [], ["1"], [None]])),
            lambda: wire.bind(dice.of(NAMES), dice.of(NAMES)),
            lambda: wire.describe(dice.of("SP"), dice.of(NAMES)),
            lambda: wire.execute(dice.of(NAMES), dice.of([0, 0, 1, 2, -1])),
            lambda: wire.execute(dice.of(NAMES)),
            lambda: wire.close(dice.of("SP"), dice.of(NAMES)),
            lambda: wire.SYNC,
            lambda: wire.SYNC,
            lambda: wire.FLUSH,
            lambda: wire.query(dice.of(STATEMENTS[:-1]).replace("$1", "1")),
            lambda: wire.query(dice.of(STATEMENTS).replace("$1", "2")),
            lambda: wire.message(dice.of("dc"), b""),
        ])()
    return script


@pytest.mark.parametrize("seed", range(6))
def test_simple_and_extended_interleaved_are_answered_as_by_postgresql(door, seed):
    dice = hostile.Dice(SEED + seed)
    scripts = [random_script(dice) for _ in range(200)]
    with door.watch():
        expected, heard = conversation(door.direct, scripts), conversation(door.dsn, scripts)
        for number, (wanted, got) in enumerate(zip(expected, heard, strict=True)):
            assert got == wanted, f"script {number} of seed {seed}: {shape(scripts[number])}"


def shape(script):
    return " ".join(f"{tag}{body!r}" for tag, body in hostile.messages(script))


@pytest.mark.parametrize("data", [wire.message("p", b"again\0"), wire.message("y"), b"\0" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00"])
def test_what_no_session_has_a_place_for_ends_it(door, data):
    with door.watch(), hostile.session(door.dsn) as connection:
        connection.send(data)
        assert refused(hostile.to_the_end(connection.socket))


def test_messages_over_the_limit_of_their_kind_end_the_session_unread(door):
    with door.watch():
        for tag, length in [("Q", 65 * 2**20), ("P", 65 * 2**20), ("B", 65 * 2**20), ("S", 10_001), ("E", 10_001), ("X", 10_001)]:
            with hostile.session(door.dsn) as connection:
                connection.send(tag.encode() + struct.pack("!i", length + 4))
                assert refused(hostile.to_the_end(connection.socket)), tag


def test_garbage_before_and_after_login(any_door):
    dice = hostile.Dice(SEED)
    with any_door.watch():
        for _ in range(60):
            with hostile.raw(any_door.dsn) as peer:
                peer.sendall(dice.bytes(400))
                hostile.give_up(peer)
                nothing_but_errors(hostile.to_the_end(peer))
        for _ in range(30):
            with hostile.session(any_door.dsn) as connection:
                send_quietly(connection, dice.bytes(400))
                hostile.reset(connection.socket) if dice.chance(20) else end_of(connection)


def end_of(connection):
    """Half-closed, where TLS has no such thing: closed."""
    hostile.give_up(connection.socket)
    hostile.to_the_end(connection.socket)


def nothing_but_errors(received):
    """Before login a client hears at most one answer to a request for encryption and one error, or a TLS alert."""
    if received[:1] in (b"S", b"N"):
        received = received[1:]
    if received[:1] != b"\x15":
        assert [tag for tag, _ in hostile.messages(received)] in ([], ["E"]), received


# Before login: what is wrong with the packet, and its bytes.
STARTUPS = {
    **{f"length {length}": struct.pack("!i", length) for length in [0, 1, 4, 7, -1, -2**31, 10_001, 2**31 - 1]},
    "protocol 2.0": struct.pack("!ii", 8, 2 << 16),
    "protocol 4.0": struct.pack("!ii", 9, 4 << 16) + b"\0",
    "a cancel without a key": struct.pack("!iii", 12, wire.CANCEL_REQUEST, 1),
    "parameters without an end": struct.pack("!ii", 13, wire.PROTOCOL_3_0) + b"user\0",
    "a request for TLS with content": struct.pack("!iii", 12, wire.SSL_REQUEST, 0),
    "a parameter twice": struct.pack("!ii", 25, wire.PROTOCOL_3_0) + b"user\0a\0user\0b\0\0\0\0",
}


@pytest.mark.parametrize("name", STARTUPS)
def test_a_startup_packet_that_lies_is_refused(any_door, name):
    with any_door.watch(), hostile.raw(any_door.dsn) as peer:
        peer.sendall(STARTUPS[name])
        nothing_but_errors(hostile.to_the_end(peer))


@pytest.mark.parametrize("tag", list("QPXSdE"))
def test_nothing_but_a_password_logs_in(door, tag):
    with door.watch(), hostile.raw(door.dsn) as peer:
        peer.sendall(hostile.startup_packet(door.dsn) + wire.message(tag, b"SELECT 1\0"))
        said = hostile.messages(hostile.to_the_end(peer))
        assert [kind for kind, _ in said] == ["R", "E"] and wire.error_fields(said[1][1])["S"] == "FATAL"


def test_what_is_sent_in_clear_ahead_of_tls_is_never_read_as_protected(doors):
    door = doors("sealed over TLS")
    login = hostile.startup_packet(door.dsn) + wire.message("p", wire.cstring(door.dsn.password))
    request = struct.pack("!ii", 8, wire.SSL_REQUEST)
    with door.watch():
        for ahead in (login, b"\0", b"\x16\x03\x01", request):
            with hostile.raw(door.dsn) as peer:
                peer.sendall(request + ahead)
                received = hostile.to_the_end(peer)
                assert b"R\0\0\0" not in received and b"08P01" in received, received
        # Behind the answer it is read as a handshake, and is none.
        with hostile.raw(door.dsn) as peer:
            peer.sendall(request)
            assert peer.recv(1) == b"S"
            peer.sendall(login)
            assert hostile.to_the_end(peer)[:1] in (b"\x15", b"")


def test_tls_records_in_single_bytes(doors):
    door = doors("sealed over TLS")
    with door.watch(), Relay(door.dsn.port, piece_bytes=1) as relay:
        with wire.Connection(door.dsn.host, relay.port, ca=door.dsn.sslrootcert) as connection:
            connection.login(door.dsn)
            connection.send(BLOB)
            slow = answers(connection)
        with hostile.session(door.dsn) as connection:
            connection.send(BLOB)
            assert answers(connection) == slow


def backends(shop):
    """Sessions of the gateways at the server; the bystanders' are among them."""
    with psycopg.connect(shop.admin.text()) as connection:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND backend_type = 'client backend'"
        return connection.execute(sql).fetchone()[0]


def test_a_client_may_leave_at_any_byte(door, shop):
    """Alternately with and without a word; the server's session ends with it."""
    with door.watch():
        before = backends(shop)
        for cut in range(0, len(BLOB), 3):
            connection = hostile.session(door.dsn)
            connection.send(BLOB[:cut])
            connection.socket.close() if cut % 2 else hostile.reset(connection.socket)
        wait_until("the server's sessions end", lambda: backends(shop) <= before, seconds=hostile.SECONDS_MAX)


def test_a_client_may_leave_during_login(any_door, shop):
    login = hostile.startup_packet(any_door.dsn) + wire.message("p", wire.cstring(any_door.dsn.password))
    with any_door.watch():
        before = backends(shop)
        for cut in [*range(0, 60, 4), len(login) - 1, len(login)]:
            peer = hostile.raw(any_door.dsn)
            peer.sendall(login[:cut])
            peer.close() if cut % 8 else hostile.reset(peer)
        wait_until("the server's sessions end", lambda: backends(shop) <= before, seconds=hostile.SECONDS_MAX)


def test_an_announced_message_costs_nothing_until_it_comes(door):
    """Fifty clients announce 64 MiB each and stop."""
    with door.watch(memory=32 * 2**20), contextlib.ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(hostile.session(door.dsn))
            hostile.send_apart(connection.socket, b"B" + struct.pack("!i", 64 * 2**20) + b"p" * 100)


def test_a_client_that_does_not_read_costs_no_memory(door):
    """Each asks for 1 GB and reads none of it; together they may hold some buffers."""
    with door.watch(memory=64 * 2**20) as watch, contextlib.ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(hostile.session(door.dsn))
            connection.send(wire.query("SELECT repeat('x', 100000) FROM generate_series(1, 10000)"))
            assert connection.receive()[0] == "T"
        for _ in range(50):
            watch.bystander_works()


def test_a_client_that_floods_and_does_not_read_costs_no_memory(door):
    """What it sends waits in its own socket once the window is full."""
    with door.watch(memory=64 * 2**20) as watch, hostile.session(door.dsn) as connection:
        sender = threading.Thread(target=send_quietly, args=(connection, wire.query("SELECT repeat('x', 10000)") * 20_000))
        sender.start()
        for _ in range(100):
            watch.bystander_works()
        connection.socket.shutdown(socket.SHUT_RDWR)
        sender.join(hostile.SECONDS_MAX)
        assert not sender.is_alive()


def cancel(dsn, key):
    with hostile.raw(dsn) as peer:
        peer.sendall(struct.pack("!ii", 8 + len(key), wire.CANCEL_REQUEST) + key)
        hostile.give_up(peer)
        return hostile.to_the_end(peer)


def test_a_storm_of_cancels_hits_what_runs_and_nothing_else(door):
    with door.watch() as watch, hostile.session(door.dsn) as victim:
        pid, secret = victim.backend
        right = struct.pack("!i", pid) + secret
        wrong = [struct.pack("!i", pid) + bytes(len(secret)), struct.pack("!i", pid + 1) + secret]
        for _ in range(60):
            assert all(cancel(door.dsn, key) == b"" for key in wrong)
        # While nothing runs there is nothing to cancel, and the next statement is not hit.
        for _ in range(20):
            cancel(door.dsn, right)
        assert "D" in [tag for tag, _ in victim.cycle(wire.query("SELECT 1"))]
        victim.send(wire.query("SELECT pg_sleep(60)"))
        storm = threading.Thread(target=lambda: [cancel(door.dsn, right) for _ in range(200)])
        storm.start()
        said = victim.receive_until("Z")
        storm.join(60)
        assert not storm.is_alive()
        assert [wire.error_fields(body)["C"] for tag, body in said if tag == "E"] == ["57014"]
        watch.bystander_works()
        assert "D" in [tag for tag, _ in victim.cycle(wire.query("SELECT 2"))]


STALLS = {
    "nothing": lambda _: [],
    "half a length": lambda _: [b"\0\0"],
    "half a startup packet": lambda dsn: [hostile.startup_packet(dsn)[:20]],
    "a request for TLS": lambda _: [struct.pack("!ii", 8, wire.SSL_REQUEST)],
    "half a handshake": lambda _: [struct.pack("!ii", 8, wire.SSL_REQUEST), b"\x16\x03\x01\x02\0\x01"],
    "a startup packet": lambda dsn: [hostile.startup_packet(dsn)],
    "half a password": lambda dsn: [hostile.startup_packet(dsn), wire.message("p", b"x" * 1000)[:500]],
}


@pytest.fixture(scope="session", autouse=True)
def stalled(doors):
    """Clients that stop before they are logged in, from the first test of this file on."""
    peers = {}
    for name in ("pass-through", "sealed over TLS"):
        for stall, pieces in STALLS.items():
            door = doors(name)
            peers[name, stall] = hostile.raw(door.dsn)
            hostile.send_apart(peers[name, stall], *pieces(door.dsn))
    yield peers
    for peer in peers.values():
        peer.close()


@pytest.mark.late
def test_a_client_that_stalls_before_login_is_sent_away(stalled):
    for key, peer in stalled.items():
        peer.settimeout(20)
        received = hostile.to_the_end(peer)
        assert b"Z\0\0\0\x05" not in received, key
