"""FunctionCall messages and large objects: what policy must name, and what then passes."""

import base64
import struct
import subprocess

import psycopg
import pytest

from lib import wire
from lib.dsn import psql_command
from lib.run import wait_until
from lib.transcript import replayed_events
from streams import callers_policy, function_call, serving, session, tags_of, writers_policy
from test_record import lines, of_type

BACKEND_PID, INT4_PLUS, INT4_DIV = 2026, 177, 154


@pytest.fixture(scope="module")
def gateway(fresh_gateway, shop, trust):
    yield from serving(fresh_gateway, shop, trust, "calling", callers_policy())


@pytest.fixture
def dsn(gateway, trust):
    return lambda group: gateway.dsn(trust.token("someone", [group]))


def int4(number):
    return struct.pack("!i", number)


def test_a_call_passes_with_the_capability_and_is_refused_without(dsn):
    call = function_call(INT4_PLUS, int4(40), int4(2), result=1)
    with session(dsn("callers")) as connection:
        (tag, value), ready = connection.cycle(call)
        assert (tag, value, ready) == ("V", struct.pack("!ii", 4, 42), ("Z", b"I"))
    with session(dsn("writers")) as connection:
        assert tags_of(connection.cycle(call)) == ["42501", "Z"]
        assert tags_of(connection.cycle(wire.query("SELECT 40 + 2"))) == ["T", "D", "C", "Z"]


def test_calls_follow_transactions_and_batches_as_the_server_does(dsn, shop):
    script = [
        function_call(BACKEND_PID, result=1), wire.query("BEGIN"), function_call(INT4_DIV, int4(1), int4(0)),
        function_call(INT4_PLUS, int4(1), int4(2)), wire.query("SELECT 1"), wire.query("ROLLBACK"),
        wire.parse("SELECT 7") + wire.SYNC, function_call(INT4_PLUS, int4(1), int4(2)),
        wire.bind() + wire.execute() + wire.SYNC,
        wire.parse("SELECT 1") + wire.bind() + function_call(INT4_PLUS, int4(1), int4(2)),
        wire.parse("SELECT 1/0") + wire.bind() + wire.execute() + function_call(INT4_PLUS, int4(1), int4(2)) + wire.SYNC,
        function_call(4_000_000_000), function_call(INT4_PLUS, int4(1), b"x"),
    ]

    def play(who):
        with session(who) as connection:
            return [tags_of(connection.cycle(part)) for part in script]

    direct, through = play(shop.reader), play(dsn("callers"))
    # What a function says is user code's word: its code is kept only where the server's own is beyond doubt.
    codes = {"V", "Z", "T", "D", "C", "1", "2", "25P02"}
    assert [[tag if tag in codes else "error" for tag in cycle] for cycle in through] == [
        [tag if tag in codes else "error" for tag in cycle] for cycle in direct
    ]


@pytest.mark.parametrize("road", ["gateway", "through"])
def test_a_call_stands_on_record_with_its_function_and_arguments_sealed(request, trust, road):
    """On either road the same; a call that is refused says which function it was for."""
    gateway = request.getfixturevalue(road)
    with session(gateway.dsn(trust.token("caller", ["callers"]))) as connection:
        name = of_type(lines(gateway), "session.start")[-1]["session"]
        connection.cycle(function_call(INT4_PLUS, b"\x00\x00\x12\x34", int4(2), result=1))
    wait_until("the session has ended", lambda: any(line["session"] == name for line in of_type(lines(gateway), "session.end")))
    events = replayed_events(gateway, name)
    [intent] = [event for event in events if event["event"]["type"] == "statement.intent"]
    assert intent["event"]["body"]["kinds"] == ["function_call"] and intent["sql"] == f"function call {INT4_PLUS}", intent
    given = [base64.b64encode(value).decode() for value in (b"\x00\x00\x12\x34", int4(2))]
    assert intent["parameters"] == [{"b64": value} for value in given], intent
    outcomes = of_type(lines(gateway), "statement.outcome", request_id=intent["event"]["body"]["request_id"])
    assert [o["body"]["rows"] for o in outcomes] == [1]
    on_record = b"".join(path.read_bytes() for path in (gateway.data_dir / "log").iterdir())
    assert given[0].encode() not in on_record


def test_a_refused_call_stands_on_record_with_its_function(gateway, trust):
    with session(gateway.dsn(trust.token("writer", ["writers"]))) as connection:
        name = of_type(lines(gateway), "session.start")[-1]["session"]
        assert tags_of(connection.cycle(function_call(INT4_DIV, int4(40), int4(2), result=1))) == ["42501", "Z"]
    wait_until("the session has ended", lambda: any(line["session"] == name for line in of_type(lines(gateway), "session.end")))
    [intent] = [event for event in replayed_events(gateway, name) if event["event"]["type"] == "statement.intent"]
    assert (intent["event"]["body"]["decision"], intent["sql"]) == ("refuse", f"function call {INT4_DIV}"), intent


def test_an_error_of_a_called_function_is_rebuilt(dsn):
    with session(dsn("callers")) as connection:
        # text to integer by int4in's words: they would quote the value.
        answer = connection.cycle(wire.message("F", struct.pack("!IhhH", INT4_DIV, 1, 0, 2) + b"\0\0\0\x066789xx" + b"\0\0\0\x011" + b"\0\0"))
        assert answer[0][0] == "E" and b"6789" not in answer[0][1]


def stored_and_read(connection, content):
    (oid,) = connection.execute("SELECT lo_from_bytea(0, %s)", (content,)).fetchone()
    return connection.execute("SELECT lo_get(%s)", (oid,)).fetchone()[0]


def test_large_object_functions_need_reader(connect, dsn):
    assert stored_and_read(connect(dsn("large")), b"hello") == b"hello"
    connection = connect(dsn("callers"))
    for sql in ("SELECT lo_from_bytea(0, 'hello')", "SELECT lo_get(1)"):
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(sql)
        assert caught.value.sqlstate == "42501" and "reader" in str(caught.value)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_deny_of_some_relations_forbids_what_may_reach_any(fresh_gateway, trust):
    gateway = fresh_gateway("denying", policy=writers_policy()).trust(trust.entry()).start()
    with session(gateway.dsn(trust.token("someone", ["large"]))) as connection:
        assert tags_of(connection.cycle(function_call(BACKEND_PID))) == ["42501", "Z"]
        assert tags_of(connection.cycle(wire.query("SELECT lo_get(1)"))) == ["42501", "Z"]
        assert tags_of(connection.cycle(wire.query("SELECT pg_backend_pid()"))) == ["T", "D", "C", "Z"]
    gateway.stop()


@pytest.mark.parametrize("sql", [
    "SELECT lo_from_bytea(0, ssn::bytea) FROM customers",
    "SELECT lo_put(1, 0, convert_to(ssn, 'UTF8')) FROM customers",
    "SELECT lo_get(id::oid) FROM customers WHERE ssn LIKE '1%'",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/exeat-e2e-never')",
    "SELECT data FROM pg_largeobject",
])
def test_what_reader_does_not_open(sql, connect, dsn):
    connection = connect(dsn("large"))
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(sql)
    assert caught.value.sqlstate == "42501"
    assert stored_and_read(connection, b"x") == b"x"


def test_psql_imports_and_exports_a_large_object(dsn, tmp_path):
    """libpq's large-object interface is made of FunctionCall messages."""
    source, copied = tmp_path / "in", tmp_path / "out"
    source.write_bytes(bytes(range(256)) * 1000)
    script = f"\\lo_import '{source}'\n\\lo_export :LASTOID '{copied}'\n"
    done = subprocess.run(
        [psql_command(), "-X", "-v", "ON_ERROR_STOP=1"], input=script, env=dsn("large").environment(),
        capture_output=True, text=True, check=False, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert copied.read_bytes() == source.read_bytes()
    refused = subprocess.run(
        [psql_command(), "-X", "-v", "ON_ERROR_STOP=1"], input=script, env=dsn("writers").environment(),
        capture_output=True, text=True, check=False, timeout=60,
    )
    assert refused.returncode != 0
