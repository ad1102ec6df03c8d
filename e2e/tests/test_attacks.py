"""Attacks on the session's own bookkeeping, byte by byte: what the server has under a name, which search path it
uses, what its errors may carry. Each one once read a sealed value in clear."""

import secrets

import psycopg
import pytest
from lib import wire
from lib.gateway import TARGET
from lib.run import wait_until

SYNC = wire.SYNC
LONG = "n" * 63  # the server keeps this much of a statement's or portal's name
CLEAR = "SELECT city FROM attack.people ORDER BY id"
SEALED = "SELECT ssn FROM attack.people ORDER BY id"
COMPUTED = "SELECT repeat(ssn, 1) FROM people ORDER BY id"
FAILS = "SELECT 1/0"
ON_TWIN = "SET search_path = attack_twin, attack"

POLICY = f"""version: 1
labels:
  {TARGET}:
    ssn: ["attack.people.ssn", "attack_new.people.city"]
rules:
  - id: work
    target: {TARGET}
    allow: [read, insert]
  - id: mask
    target: {TARGET}
    mask: {{ssn: {{with: redact}}}}
"""


def run(sql):
    """Parse, Bind and Execute of an unnamed statement, without Sync."""
    return wire.parse(sql) + wire.bind() + wire.execute()


@pytest.fixture(scope="module")
def value(shop):
    """The sealed value. The twin has the same table without anything sealed; the trigger quotes the value late."""
    secret = f"sealed-{secrets.token_hex(6)}"
    with psycopg.connect(shop.admin.text(), autocommit=True) as admin:
        admin.execute(
            f"""
            CREATE SCHEMA attack; CREATE SCHEMA attack_twin; CREATE SCHEMA attack_new;
            CREATE TABLE attack.people (id int, city text, ssn text,
                digits text GENERATED ALWAYS AS (replace(ssn, ':', '')) STORED);
            INSERT INTO attack.people VALUES (1, 'Ghent', '{secret}');
            CREATE TABLE attack_twin.people (id int, city text, ssn text);
            INSERT INTO attack_twin.people VALUES (1, 'Nowhere', 'none');
            CREATE TABLE attack.tickets (id int);
            CREATE FUNCTION attack.quote() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                $$ BEGIN RAISE EXCEPTION '%', (SELECT ssn FROM attack.people); END $$;
            CREATE CONSTRAINT TRIGGER late AFTER INSERT ON attack.tickets DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION attack.quote();
            GRANT USAGE ON SCHEMA attack, attack_twin, attack_new TO shop_reader;
            GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA attack, attack_twin TO shop_reader;
            """
        )
    return secret


@pytest.fixture(scope="module")
def dsn(fresh_gateway, trust, value):
    gateway = fresh_gateway("attacks", POLICY).trust(trust.entry()).start()
    return gateway.dsn(trust.token("agent-7", ["agents"]))


# Each conversation is a list of packets; a packet is sent whole, then answered up to its last ReadyForQuery.
TICKET = "INSERT INTO attack.tickets VALUES (1)"
CONVERSATIONS = {
    "a statement's name that the server cuts": [
        [wire.parse(CLEAR, LONG + "A"), wire.describe("S", LONG + "A"), SYNC],
        [wire.close("S", LONG + "B"), wire.parse(SEALED, LONG + "B"), SYNC],
        [wire.bind("", LONG + "A"), wire.execute(), SYNC],
    ],
    "a portal's name that the server cuts": [
        [wire.parse(CLEAR, "a"), wire.describe("S", "a"), wire.parse(SEALED, "b"), wire.describe("S", "b"), SYNC],
        [wire.bind(LONG + "A", "a"), wire.close("P", LONG + "B"), wire.bind(LONG + "B", "b"),
         wire.execute(LONG + "A"), SYNC],
    ],
    "a name that DEALLOCATE frees although it is longer": [
        [wire.parse(CLEAR, LONG + "A"), wire.describe("S", LONG + "A"), SYNC],
        [wire.query(f'DEALLOCATE "{LONG}"')],
        [wire.parse(SEALED, LONG), SYNC],
        [wire.bind("", LONG + "A"), wire.execute(), SYNC],
    ],
    "a skipped Close taken back after a later batch used the name": [
        [wire.parse(CLEAR, "s"), wire.describe("S", "s"), SYNC],
        [run(FAILS), wire.close("S", "s"), SYNC, wire.close("S", "s"), wire.parse(SEALED, "s"), SYNC],
        [wire.bind("", "s"), wire.execute(), SYNC],
    ],
    "a search path that an implicit transaction takes back": [
        [wire.query("SET search_path = attack")],
        [run(ON_TWIN), run(FAILS), SYNC, wire.query(COMPUTED)],
    ],
    "a search path that a refusal takes back": [
        [wire.query("SET search_path = attack")],
        [run(ON_TWIN), run("SELECT 1"), run("SELECT substr(ssn, 1, 3) FROM attack.people"), SYNC, wire.query(COMPUTED)],
    ],
    "a search path forgotten at the end of an earlier exchange": [
        [wire.query("SET search_path = attack")],
        [wire.query("SELECT 1"), wire.query("BEGIN"), wire.query("SET LOCAL search_path = attack_twin, attack")],
        [wire.query("SELECT 1")],
        [wire.query("ROLLBACK")],
        [wire.query(COMPUTED)],
    ],
    "a COMMIT whose transaction began behind another answer": [
        [wire.query("SELECT 1"), wire.query("BEGIN"), wire.query(TICKET)],
        [wire.query("COMMIT")],
    ],
    "a Sync that commits behind another Sync": [[run("SELECT 1"), SYNC, run(TICKET), SYNC]],
    "a search path that a refused Query takes back": [
        [wire.query("SET search_path = attack")],
        [run(ON_TWIN), wire.query("SELECT substr(ssn, 1, 3) FROM attack.people"), wire.query(COMPUTED)],
    ],
    "a search path that a refused FunctionCall takes back": [
        [wire.query("SET search_path = attack")],
        [run(ON_TWIN), run("SELECT 1"), wire.message("F", bytes(10)), wire.query(COMPUTED)],
    ],
    "rows in FROM whose columns hide the name": [
        [wire.query("SELECT (SELECT ssn FROM unnest(ARRAY[t]) AS ssn) FROM attack.people p, attack.tickets t")],
        [wire.query("SELECT (SELECT ssn FROM unnest((SELECT array_agg(n) FROM pg_namespace n)) AS ssn LIMIT 1) FROM attack.people")],
    ],
    "rows in a parameter": [
        [wire.parse("SELECT (SELECT ssn FROM unnest($1) AS ssn) FROM attack.people", "", [210]),
         wire.bind(values=["{NULL}"]), wire.execute(), SYNC],
    ],
    "a Query that commits the open batch before it": [[run(TICKET), wire.query("SELECT 1")]],
    "SET CONSTRAINTS": [
        [wire.query("BEGIN")], [wire.query(TICKET)], [wire.query("SET CONSTRAINTS ALL IMMEDIATE")],
    ],
    "a generated column of a sealed one": [[wire.query("SELECT digits FROM attack.people")]],
    "a comparison with a generated column of a sealed one": [
        [wire.query("SELECT id, digits FROM attack.people WHERE digits > ''")],
    ],
}


def answers(packet):
    """How many ReadyForQuery messages a packet asks for."""
    data, count = b"".join(packet), 0
    while data:
        count += data[:1] in (b"Q", b"S", b"F")
        data = data[1 + int.from_bytes(data[1:5], "big"):]
    return count


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_no_conversation_reads_a_sealed_value(dsn, value, name):
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        received = []
        try:
            for packet in CONVERSATIONS[name]:
                connection.send(*packet)
                for _ in range(answers(packet)):
                    received += connection.receive_until("Z")
        except wire.Closed:
            pass  # a session that ended rather than release something has done its work
    assert value.encode() not in b"".join(body for _, body in received)


def test_a_view_replaced_while_the_statement_waits_is_not_read(dsn, shop, value):
    """The server analyses again under the new definition once it has the lock; the gateway analysed the old one."""
    with (
        psycopg.connect(shop.admin.text(), autocommit=True) as admin,
        psycopg.connect(shop.admin.text()) as changing,
        wire.Connection(dsn.host, dsn.port) as connection,
    ):
        admin.execute("CREATE OR REPLACE VIEW attack.board AS SELECT id, city AS line FROM attack.tickets, (SELECT 'x' AS city) c")
        admin.execute("GRANT SELECT ON attack.board TO shop_reader")
        admin.execute("INSERT INTO attack_twin.people VALUES (2, 'Elsewhere', 'none')")
        connection.login(dsn)
        connection.cycle(wire.query("SELECT 'x' || line FROM attack.board"))
        changing.execute("CREATE OR REPLACE VIEW attack.board AS SELECT id, ssn AS line FROM attack.people")
        connection.send(wire.query("SELECT 'x' || line FROM attack.board"))
        waiting = "SELECT now() - query_start > interval '1500 ms' FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until("the statement waits", lambda: any(long for (long,) in admin.execute(waiting)))
        changing.commit()
        received = []
        with pytest.raises(wire.Closed):
            while True:
                received.append(connection.receive())
        admin.execute("DROP VIEW attack.board")
    assert value.encode() not in b"".join(body for _, body in received)
    assert wire.error_fields(received[-1][1])["C"] == "58030"


def test_a_definition_under_an_uncommitted_change_holds_nobody_for_long(dsn, shop):
    """The catalog is read again because of one change while another, uncommitted, holds the lock of a view."""
    with psycopg.connect(shop.admin.text(), autocommit=True) as admin, psycopg.connect(shop.admin.text()) as changing:
        admin.execute("CREATE VIEW attack.held AS SELECT id FROM attack.tickets")
        changing.execute("CREATE OR REPLACE VIEW attack.held AS SELECT id FROM attack.people")
        admin.execute("CREATE TABLE attack.passing (id int)")
        with wire.Connection(dsn.host, dsn.port) as connection:  # every read of it has a deadline
            connection.login(dsn)
            answer = connection.cycle(wire.query("SELECT id FROM attack.people"))
            assert [tag for tag, _ in answer] == ["T", "D", "C", "Z"]
            answer = connection.cycle(wire.query("SELECT id FROM attack.held"))
            assert [wire.error_fields(body)["C"] for tag, body in answer if tag == "E"] == ["42501"]
        changing.rollback()
        with wire.Connection(dsn.host, dsn.port) as connection:
            answer = connection.login(dsn).cycle(wire.query("SELECT id FROM attack.people"))
        assert [tag for tag, _ in answer] == ["T", "D", "C", "Z"]
        admin.execute("DROP VIEW attack.held; DROP TABLE attack.passing")


def test_a_relation_that_steps_in_front_of_a_prepared_statements_is_not_read(dsn, shop, value):
    """A description from before the change says nothing about what the statement reads after it."""
    with psycopg.connect(shop.admin.text(), autocommit=True) as admin, wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        connection.cycle(wire.query("SET search_path = attack_new, attack"))
        connection.cycle(wire.parse("SELECT city FROM people", "s"), wire.describe("S", "s"), SYNC)
        before = connection.cycle(wire.bind("", "s"), wire.execute(), SYNC)
        assert b"Ghent" in b"".join(body for _, body in before)
        admin.execute("CREATE TABLE attack_new.people AS SELECT id, ssn AS city FROM attack.people")
        admin.execute("GRANT SELECT ON attack_new.people TO shop_reader")
        received = []
        try:
            received = connection.cycle(wire.bind("", "s"), wire.execute(), SYNC)
        except wire.Closed:
            pass  # what was predicted is not what came
        finally:
            admin.execute("DROP TABLE attack_new.people")
    assert value.encode() not in b"".join(body for _, body in received)


def test_the_end_of_a_failed_block_sent_ahead_is_the_servers(dsn):
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        connection.send(*map(wire.query, ("BEGIN", "SET search_path = attack", "SELECT 1/0", "COMMIT", "SELECT 1")))
        states = [connection.receive_until("Z")[-1][1] for _ in range(5)]
    assert states == [b"T", b"T", b"E", b"I", b"I"]


def test_the_attacks_aim_at_something(shop, value):
    """Past the gateway the same texts do show the value."""
    with psycopg.connect(shop.reader.text(), options="-c search_path=attack") as direct:
        assert direct.execute(SEALED).fetchone() == (value,)
        assert direct.execute(COMPUTED).fetchone() == (value,)
        assert direct.execute("SELECT digits FROM attack.people").fetchone() == (value,)
