"""What the record says when the end of a batch takes back what its statements had answered."""

import struct

import pytest
from lib import wire
from lib.gateway import PASS_THROUGH, Gateway
from lib.postgres import SUPERUSER
from lib.run import wait_until
from spine import LABELS
from streams import WRITERS, admin, function_call, session, tags_of
from test_record import lines, of_type
from lib.yaml_text import dump

LATE = """
CREATE TABLE IF NOT EXISTS late (id integer PRIMARY KEY);
CREATE OR REPLACE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'too late for %', NEW.id; END $$;
CREATE OR REPLACE FUNCTION write_late(integer) RETURNS integer LANGUAGE sql AS
  $$ INSERT INTO late VALUES ($1) RETURNING id $$;
DROP TRIGGER IF EXISTS refuse ON late;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.id >= 100) EXECUTE FUNCTION refuse_late();
CREATE TABLE IF NOT EXISTS early (id integer PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
GRANT SELECT, INSERT, DELETE ON late, early TO shop_reader;
"""


@pytest.fixture(scope="module", params=["pass-through", "sealed"])
def gateway(request, run, program, server, shop, trust, fresh_gateway):
    admin(shop, LATE)
    if request.param == "sealed":
        rules = [*WRITERS, {"id": "both", "who": {"groups": ["both"]}, "target": "shop",
                            "allow": ["read", "insert", "update", "delete", "function_call"]},
                 {"id": "mask-both", "who": {"groups": ["both"]}, "target": "shop", "mask": {"email": {"with": "redact"}}}]
        policy = dump({"version": 1, "labels": {"shop": LABELS}, "rules": rules})
        made = fresh_gateway("late", policy=policy).trust(trust.entry())
    else:
        made = Gateway(run, "late-unrestricted").policy(PASS_THROUGH).trust(trust.entry())
        made.target(server, "shop", [{"user": SUPERUSER, "password": server.password}], allow_privileged_login=True)
    yield made.start(level="debug")
    made.stop()


@pytest.fixture
def client(gateway, shop, trust):
    admin(shop, "DELETE FROM late; DELETE FROM early")
    with session(gateway.dsn(trust.token("batcher", ["both"]))) as connection:
        yield connection


def insert(number, table="late"):
    return wire.parse(f"INSERT INTO {table} VALUES ({number})") + wire.bind() + wire.execute()


def story(gateway, session_start):
    """(number of the request, its outcome) of one session, in order."""
    mine = [e for e in lines(gateway) if e.get("session") == session_start]
    told = [e["body"] for e in mine if e["type"] == "statement.outcome"]
    return [(body["result"], body.get("sqlstate"), body["request_id"], body.get("batch_from")) for body in told]


def last_session(gateway):
    return of_type(lines(gateway), "session.start")[-1]["session"]


def ended(gateway, count):
    name = last_session(gateway)
    wait_until("the outcomes are on record", lambda: len(story(gateway, name)) >= count)
    return story(gateway, name)


@pytest.mark.parametrize("table", ["late", "early"])
def test_a_sync_that_fails_says_what_it_took_back(gateway, client, shop, table):
    second = 1 if table == "early" else 100
    tags = tags_of(client.cycle(insert(1, table), insert(second, table), wire.SYNC))
    assert tags[:-2] == ["1", "2", "C"] * 2 and tags[-1] == "Z"
    assert admin(shop, f"SELECT count(*) FROM {table}") == [(0,)]
    told = ended(gateway, 3)
    first, last = told[0][2], told[1][2]
    assert [entry[0] for entry in told] == ["ok", "ok", "rolled_back"] and first != last
    assert told[2][1:] == ("23505" if table == "early" else "P0001", last, first)


def test_a_batch_that_commits_has_no_more_than_its_outcomes(gateway, client, shop):
    client.cycle(insert(1), insert(2), wire.SYNC)
    client.cycle(wire.query("SELECT 1"))
    assert admin(shop, "SELECT count(*) FROM late") == [(2,)]
    told = ended(gateway, 3)
    assert [(entry[0], entry[3]) for entry in told] == [("ok", None)] * 3


def test_an_execute_that_fails_names_what_goes_with_it(gateway, client, shop):
    client.cycle(insert(1), insert(2), insert(2), wire.SYNC)
    assert admin(shop, "SELECT count(*) FROM late") == [(0,)]
    told = ended(gateway, 3)
    assert [entry[0] for entry in told] == ["ok", "ok", "error"] and told[2][3] == told[0][2]


def test_in_a_block_nothing_is_said_to_be_taken_back_by_a_failure(gateway, client):
    client.cycle(wire.query("BEGIN"))
    client.cycle(insert(1), wire.SYNC)
    client.cycle(insert(3), insert(1), wire.SYNC)
    client.cycle(wire.query("ROLLBACK"))
    told = ended(gateway, 5)
    assert [entry[0] for entry in told] == ["ok", "ok", "ok", "error", "ok"]
    assert [entry[3] for entry in told] == [None] * 5


def test_a_client_that_leaves_before_its_sync_leaves_no_certainty(gateway, client):
    assert tags_of(client.cycle(wire.query("SELECT 1")))[-1] == "Z"
    client.send(insert(1), insert(2), wire.FLUSH)
    for tag in "12C12C":
        assert client.receive()[0] == tag
    client.socket.close()
    told = ended(gateway, 4)
    assert [entry[0] for entry in told] == ["ok", "ok", "ok", "outcome_unknown"]
    assert told[3][2:] == (told[2][2], told[1][2])


@pytest.mark.parametrize("number", [7, 700])
def test_a_function_call_ends_with_its_commit(gateway, client, shop, number):
    oid = admin(shop, "SELECT 'write_late'::regproc::oid::integer")[0][0]
    answer = client.cycle(function_call(oid, struct.pack("!i", number), result=1))
    assert answer[0] == ("V", struct.pack("!ii", 4, number))
    tags = tags_of(answer)
    mine = last_session(gateway)
    told = ended(gateway, 1)
    last = [e["body"]["last"] for e in of_type(lines(gateway), "statement.outcome") if e["session"] == mine]
    kept = admin(shop, "SELECT count(*) FROM late")[0][0]
    if number < 100:
        assert tags == ["V", "Z"] and kept == 1
        assert [entry[0] for entry in told] == ["ok"] and last == [True]
    else:
        assert tags[0] == "V" and len(tags) == 3 and kept == 0
        assert [entry[0] for entry in told] == ["ok", "rolled_back"] and last == [False, True]
