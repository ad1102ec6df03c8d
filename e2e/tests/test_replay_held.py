"""A replay of what was held, cancelled, or left in the middle: what the client got is on record, and what it did not get is
not shown as if it had."""

import psycopg
import pytest
from lib import wire
from lib.relay import Relay
from lib.transcript import behind_login, messages, replay
from lib.yaml_text import dump
from streams import admin
from test_approvals_of_statements import SQL, Held, Reader
from test_holds import HOLD, POLICY, SCHEMA
from test_reading import exeat
from test_replay import one_session
from test_sessions import runs_and_is_cancelled

LONG = "SELECT a.id, b.name, c.name FROM held.people a, held.people b, held.notes n, held.people c"


@pytest.fixture(scope="module")
def held(fresh_gateway, shop, trust):
    admin(shop, SCHEMA)
    rules = [POLICY["rules"][0], {**POLICY["rules"][1], "hold": {**HOLD, "wait": "60s", "expires": "5m"}}]
    free = {"id": "free", "who": {"groups": ["free"]}, "target": "shop", "allow": ["read"]}
    made = fresh_gateway("replay-held", policy=dump({**POLICY, "rules": [*rules, free]})).trust(trust.entry())
    made.config["audit"] = {"results": {"rows": 1_000_000_000, "bytes": "1GiB"}}
    made.start(level="debug")
    yield Held(made, trust)
    made.stop()
    admin(shop, "DROP SCHEMA held CASCADE")


@pytest.mark.parametrize("decision", ["approve", "deny"])
def test_rows_that_waited_are_on_record_when_they_leave_and_never_otherwise(held, decision):
    name, dsn = held.agent()
    with Relay(dsn.port) as relay:
        reader = Reader(dsn.with_(port=relay.port), wire.query(SQL))
        approval = held.waiting(name)
        reason = ["--reason", "replayed"] if decision == "deny" else []
        assert held.command(decision, approval, *reason)[0] == 0
        reader.all()
        session = one_session(held.gateway)
        (answer,) = relay.answers().values()
    got = behind_login(answer)
    done = replay(held.gateway, session, "--bytes")
    assert done.returncode == 0 and done.stdout == got
    rows = sum(tag == "D" for tag, _ in messages(got))
    assert rows == (500 if decision == "approve" else 0)
    assert b"name 7" not in done.stdout or decision == "approve"
    # Who decided is told where it happened, whether the whole log is read or an index says where.
    whole = replay(held.gateway, session).stdout.decode()
    said = f"approval.decided   officer at shop  {approval}  {'approved' if decision == 'approve' else 'denied  because replayed'}\n"
    assert said in whole and whole.index("approval.requested") < whole.index(said) < whole.index("statement.outcome"), whole
    exeat("sessions", "list", "--config", held.gateway.config_file)
    assert replay(held.gateway, session).stdout.decode() == whole
    assert said.strip() in exeat("sessions", "show", session, "--config", held.gateway.config_file).stdout
    (held.gateway.data_dir / "index.db").unlink()


def test_a_client_that_leaves_in_the_middle_has_got_no_more_than_the_record_says(held, trust):
    dsn = held.gateway.dsn(trust.token("leaver", ["free"]))
    with Relay(dsn.port) as relay:
        connection = wire.Connection(dsn.host, relay.port).login(dsn)
        connection.send(wire.query(LONG))
        connection.receive_until("D")
        connection.__exit__()
        session = one_session(held.gateway)
        (answer,) = relay.answers().values()
    got = behind_login(answer, whole=False)
    done = replay(held.gateway, session, "--bytes")
    assert done.stdout.startswith(got) and len(got) > 100, (len(got), len(done.stdout))


def test_a_cancelled_statement_is_replayed_with_its_end(held, trust, shop):
    dsn = held.gateway.dsn(trust.token("canceller", ["free"]))
    with Relay(dsn.port) as relay:
        with psycopg.connect(dsn.with_(port=relay.port).text(), autocommit=True) as connection:
            runs_and_is_cancelled(connection, shop)
            assert connection.execute("SELECT 1").fetchone() == (1,)
        session = one_session(held.gateway)
        (got,) = [got for got in map(behind_login, relay.answers().values()) if got]
    done = replay(held.gateway, session, "--bytes")
    assert done.returncode == 0 and done.stdout == got
    assert b"57014" in got


def test_notices_between_statements_are_in_the_stream(held, trust):
    """What belongs to no statement has its place too."""
    dsn = held.gateway.dsn(trust.token("listener", ["free"]))
    with Relay(dsn.port) as relay:
        with wire.Connection(dsn.host, relay.port).login(dsn) as connection:
            for number in range(3):
                connection.cycle(wire.query(f"SET application_name = 'listener {number}'"))
            connection.send(wire.message("X"))
            with pytest.raises(wire.Closed):
                connection.receive()
        session = one_session(held.gateway)
        (answer,) = relay.answers().values()
    got = behind_login(answer)
    assert sum(tag == "S" for tag, _ in messages(got)) >= 3
    assert replay(held.gateway, session, "--bytes").stdout == got
