"""How a wait for a human ends without one: the client leaves or has sent more, the gateway stops, the policy changes, the asker
is frozen, a transaction may not stay idle. Nothing of the statement leaves by any of these, and nobody hangs."""

import itertools
import json
import os
import signal
import socket
import subprocess
import threading

import psycopg
import pytest

from lib import record, wire
from lib.gateway import binary
from lib.postgres import psql
from lib.run import wait_until
from lib.yaml_text import dump
from streams import admin, session, tags_of
from test_approvals_of_statements import Held, Reader
from test_holds import HOLD, POLICY, SCHEMA
from test_shared_store import url

SQL = "SELECT id, name FROM held.people"
NUMBERS = itertools.count()
EXTENDED = wire.parse(SQL) + wire.bind() + wire.execute()


def policy(**more):
    return dump({**POLICY, "rules": [POLICY["rules"][0], {**POLICY["rules"][1], "hold": {**HOLD, "wait": "60s", "expires": "5m"}}], **more})


@pytest.fixture
def made(fresh_gateway, shop, trust):
    """Not started."""
    admin(shop, SCHEMA)
    made = fresh_gateway(f"ends-{next(NUMBERS)}", policy=policy()).trust(trust.entry())
    made.config["console"] = {"roles": {"viewer": ["dpo"], "admin": ["ops"]}}
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()
    admin(shop, "DROP SCHEMA held CASCADE")


@pytest.fixture
def held(made, trust):
    return Held(made.start(level="debug"), trust)


def without_notices(tags):
    return [tag for tag in tags if tag not in "NS"]


def state(held, approval):
    return held.command("show", approval)[1]["state"]


def approval_events(gateway):
    """Their types, of sessions; what a decision does stands outside of them."""
    events = record.events(gateway.data_dir)
    return [event["type"] for event in events if event["type"].startswith("approval.") and "session" in event]


@pytest.mark.parametrize("leaving", [wire.TERMINATE, None], ids=["says so", "is gone"])
@pytest.mark.parametrize("sent", [wire.query(SQL), EXTENDED + wire.SYNC, EXTENDED + wire.FLUSH], ids=["simple", "extended", "flush"])
def test_a_client_that_leaves_withdraws(held, leaving, sent):
    name, dsn = held.agent()
    connection = session(dsn)
    connection.send(sent)
    approval = held.waiting(name)
    if leaving:
        connection.send(leaving)
    connection.__exit__()
    wait_until("the request is withdrawn", lambda: state(held, approval) == "withdrawn", seconds=10)
    wait_until("it is on record", lambda: approval_events(held.gateway) == ["approval.requested", "approval.withdrawn"], seconds=20)


def test_a_client_that_leaves_while_it_is_asked_withdraws(made, run, server, trust):
    """The store cannot write for a moment, and the client does not wait for that."""
    store = server.create_database(made.name)
    made.config["store"] = {"file": str(run.secret_file(f"{made.name}.store", url(store) + "\n"))}
    held = Held(made.start(level="debug"), trust)
    name, dsn = held.agent()
    asking = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE 'INSERT INTO request %'"
    with psycopg.connect(store.text()) as lock, session(held.gateway.dsn(trust.token("bystander", ["agents"]))) as bystander:
        lock.execute("LOCK TABLE request IN SHARE MODE")
        with session(dsn) as connection:
            connection.send(wire.query(SQL))
            wait_until("it is being asked", lambda: psql(store, asking).stdout.strip() == "1", seconds=4)
        assert tags_of(bystander.cycle(wire.query("SELECT 1"))).count("D") == 1
        lock.commit()
    withdrawn = "SELECT string_agg(state, ' ') FROM request"
    wait_until("the request is withdrawn", lambda: psql(store, withdrawn).stdout.strip() == "withdrawn", seconds=20)
    wait_until("it is on record", lambda: approval_events(made) == ["approval.requested", "approval.withdrawn"], seconds=20)


@pytest.mark.parametrize("sent", [wire.query(SQL), EXTENDED + wire.SYNC], ids=["simple", "extended"])
def test_a_client_that_ends_its_side_has_left(held, shop, sent):
    """It looks the same as one that is gone: nobody may be there to see what a human would let through."""
    name, dsn = held.agent()
    with session(dsn) as connection:
        connection.send(sent)
        approval = held.waiting(name)
        connection.socket.shutdown(socket.SHUT_WR)
        heard = []
        with pytest.raises(wire.Closed):
            while True:
                heard.append(connection.receive())
        assert not {"D", "C", "Z"} & set(tags_of(heard)), heard
    wait_until("the request is withdrawn", lambda: state(held, approval) == "withdrawn", seconds=10)
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop_reader' AND query LIKE '%held.people%'"
    wait_until("the server has no such session", lambda: admin(shop, sessions) == [(0,)], seconds=10)


def test_what_was_sent_behind_is_answered_behind(held):
    name, dsn = held.agent()
    with session(dsn) as connection:
        connection.send(wire.query(SQL), wire.query("SELECT 1"), EXTENDED, wire.SYNC, wire.query("SELECT 2"))
        assert held.command("deny", held.waiting(name), "--reason", "no")[0] == 0
        answers = [without_notices(tags_of(connection.receive_until("Z"))) for _ in range(4)]
        assert answers[1] == answers[3] == ["T", "D", "C", "Z"]
        for answer in (answers[0], answers[2]):
            assert answer[-2:] == ["42501", "Z"] and "D" not in answer, answer


def test_a_gateway_that_stops_tells_whoever_waits_and_the_request_stays(held):
    name, dsn = held.agent()
    reader = Reader(dsn, wire.query(SQL))
    approval = held.waiting(name)
    held.gateway.process.send_signal(signal.SIGTERM)
    wait_until("the client is told", lambda: "E" in reader.tags(), seconds=15)
    assert "D" not in reader.tags()
    assert b"CYG001\0" in next(body for tag, body in reader.heard if tag == "E")
    held.gateway.process.wait(20)
    held.gateway.run.forget(held.gateway.process)
    held.gateway.start(level="debug")
    assert state(held, approval) == "pending" and held.command("approve", approval)[0] == 0
    with session(held.gateway.dsn(held.trust.token(name, ["agents"]))) as connection:
        assert tags_of(connection.cycle(wire.query(SQL))).count("D") == 500


def test_a_policy_that_changed_meanwhile_is_not_the_one_approved(held):
    name, dsn = held.agent()
    reader = Reader(dsn, wire.query(SQL))
    approval = held.waiting(name)
    before = held.gateway.log_text().count("policy")
    held.gateway.policy(policy(labels={"shop": {"email": ["held.people.email", "held.notes.note"]}}))
    wait_until("the new policy is in force", lambda: held.gateway.log_text().count("policy") > before, seconds=20)
    held.command("approve", approval)
    assert "D" not in reader.all()
    assert reader.tags().endswith("EZ"), reader.tags()


def test_who_is_frozen_while_waiting_gets_nothing(held):
    name, dsn = held.agent()
    heard = []

    def read():
        with session(dsn) as connection:
            connection.send(wire.query(SQL))
            try:
                while True:
                    heard.append(connection.receive())
            except (wire.Closed, OSError):
                pass

    reading = threading.Thread(target=read)
    reading.start()
    approval = held.waiting(name)
    environment = {
        **os.environ, "EXEAT_URL": held.gateway.console_url(), "EXEAT_TOKEN": held.trust.token("warden", ["ops"]),
    }
    done = subprocess.run(
        [binary(), "freeze", name, "--subject", "--reason", "incident"], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )
    assert done.returncode == 0, done.stderr
    reading.join(15)
    assert not reading.is_alive()
    tags = tags_of(heard)
    assert "D" not in tags and "57P01" in tags, tags
    wait_until("the request is withdrawn", lambda: state(held, approval) == "withdrawn", seconds=10)


def test_a_batch_whose_time_runs_is_told_in_time(held):
    """Held before it runs, and to the server it runs since its Parse."""
    _, dsn = held.agent()
    copies = "INSERT INTO held.notes SELECT id + 1000, name FROM held.people"
    with session(dsn) as connection:
        connection.cycle(wire.query("SET statement_timeout = '4s'"))
        connection.socket.settimeout(20)
        heard = connection.cycle(wire.parse(copies), wire.bind(), wire.execute(), wire.SYNC)
        errors = [wire.error_fields(body) for tag, body in heard if tag == "E"]
        assert [error["C"] for error in errors] == ["YG001"] and heard[-1] == ("Z", b"I"), errors
        assert tags_of(connection.cycle(wire.query("SELECT 1"))) == ["T", "D", "C", "Z"]


def test_who_leaves_withdraws_nothing_that_another_session_of_the_asker_waits_for(held):
    name, dsn = held.agent()
    gone = session(dsn)
    gone.send(wire.query(SQL))
    approval = held.waiting(name)
    reader = Reader(dsn, wire.query(SQL))
    wait_until("the other is told that it waits", lambda: any(approval.encode() in body for tag, body in list(reader.heard) if tag == "N"))
    gone.__exit__()
    wait_until("its end is on record", lambda: record.events(held.gateway.data_dir, "session.end"))
    assert state(held, approval) == "pending" and held.command("approve", approval)[0] == 0
    assert reader.all().count("D") == 500


def test_a_transaction_that_may_not_stay_idle_is_told_in_time(held, shop):
    """Held before it runs, and some of the server's patience is used up when it comes: the server would end the session."""
    _, dsn = held.agent()
    copies = "INSERT INTO held.notes SELECT id + 1000, name FROM held.people"
    idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND now() - state_change > '1.5 s' AND usename = 'shop_reader'"
    with session(dsn) as connection:
        for step in ("SET idle_in_transaction_session_timeout = '6s'", "BEGIN"):
            connection.cycle(wire.query(step))
        wait_until("it has been idle for a while", lambda: admin(shop, idle) == [(1,)], seconds=4)
        heard = connection.cycle(wire.query(copies))
        errors = [wire.error_fields(body) for tag, body in heard if tag == "E"]
        assert [error["C"] for error in errors] == ["YG001"] and heard[-1] == ("Z", b"E"), errors
        assert json.loads(errors[0]["D"])["code"] == "approval_pending"
        assert connection.cycle(wire.query("ROLLBACK"))[-1] == ("Z", b"I")
        assert tags_of(connection.cycle(wire.query("SELECT 1"))) == ["T", "D", "C", "Z"]
