"""A held statement and the humans who decide: nothing of it is at the client's socket before they have, all of it after,
up to what they allowed, once. Whoever waits is told; whoever does not wait collects with the identical statement."""

import json
import threading

import psycopg
import pytest

from lib import wire
from lib.run import wait_until
from lib.yaml_text import dump
from streams import admin
from spine import REDACTED
from test_holds import HOLD, POLICY, SCHEMA

SQL = "SELECT id, name, email FROM held.people"
NUMBER = iter(range(1, 1_000_000))


class Held:
    def __init__(self, gateway, trust):
        self.gateway, self.trust = gateway, trust

    def agent(self):
        name = f"asker-{next(NUMBER)}"
        return name, self.gateway.dsn(self.trust.token(name, ["agents"]))

    def command(self, *arguments, who=("officer", ["dpo"])):
        """(exit status, what was printed as JSON)"""
        status, printed, said = self.gateway.command(self.trust.token(*who), "approvals", *arguments)
        return status, said if printed is None else printed

    def waiting(self, name):
        """The open request of one asker, once it is there."""
        found = []

        def listed():
            status, printed = self.command("list", "--principal", name)
            assert status == 0, printed
            found[:] = printed["approvals"]
            return bool(found)

        wait_until(f"{name} waits for a human", listed, seconds=20)
        return found[0]["id"]


@pytest.fixture(scope="module")
def held(fresh_gateway, shop, trust):
    admin(shop, SCHEMA)
    mask = {"id": "mask", "who": {"groups": ["agents"]}, "target": "shop", "mask": {"email": {"with": "redact"}}}
    rules = [POLICY["rules"][0], mask, {**POLICY["rules"][1], "hold": {**HOLD, "wait": "60s", "expires": "5m", "sample": 2}}]
    made = fresh_gateway("decided", policy=dump({**POLICY, "rules": rules})).trust(trust.entry())
    made.config["console"] = {"roles": {"viewer": ["dpo"], "admin": ["ops"]}}
    made.start(level="debug")
    yield Held(made, trust)
    made.stop()
    admin(shop, "DROP SCHEMA held CASCADE")


class Reader(threading.Thread):
    """Takes what comes from the socket, message by message, up to ReadyForQuery."""

    def __init__(self, dsn, *sent):
        super().__init__(daemon=True)
        self.heard, self.connection = [], wire.Connection(dsn.host, dsn.port)
        self.connection.login(dsn)
        self.connection.send(*sent)
        self.start()

    def run(self):
        while not self.heard or self.heard[-1][0] != "Z":
            self.heard.append(self.connection.receive())

    def tags(self):
        return "".join(tag for tag, _ in self.heard)

    def all(self):
        self.join(30)
        assert not self.is_alive(), self.tags()
        self.connection.__exit__()
        # What belongs to no answer.
        return "".join(tag for tag, _ in self.heard if tag not in "NS")


BY = {"simple": wire.query(SQL), "extended": wire.parse(SQL) + wire.bind() + wire.execute() + wire.SYNC}


@pytest.mark.parametrize("protocol", BY)
def test_nothing_is_at_the_socket_before_the_approval_and_everything_after(held, protocol):
    name, dsn = held.agent()
    reader = Reader(dsn, BY[protocol])
    approval = held.waiting(name)
    assert "D" not in reader.tags()
    status, card = held.command("show", approval)
    assert status == 0 and card["card"]["sql"] == SQL and card["card"]["principal"]["subject"] == name, card
    # As many as leave within a day without a human.
    assert card["card"]["so_far"]["rows"] == {"held.people": 100}
    # As the asker gets them, and not for the asker before anybody agreed.
    sample = [["1", "name 1", REDACTED], ["2", "name 2", REDACTED]]
    assert card["card"]["sample"] == {"columns": ["id", "name", "email"], "rows": sample}
    assert held.command("show", approval, who=(name, ["agents"]))[1]["card"]["sample"] is None
    assert held.command("approve", approval)[0] == 0
    tags = reader.all()
    assert tags.endswith("D" * 500 + "CZ"), tags
    assert [mask["column"] for mask in card["card"]["masks"]] == ["held.people.email"]
    assert not any(b"@example.com" in body for tag, body in reader.heard if tag == "D")


def test_the_card_has_the_planners_guess(held):
    """Who is asked without one where it takes longer than a second is asked anew."""

    def guessed():
        name, dsn = held.agent()
        reader = Reader(dsn, BY["simple"])
        approval = held.waiting(name)
        card = held.command("show", approval)[1]["card"]
        assert held.command("deny", approval, "--reason", "seen")[0] == 0
        reader.all()
        return card["estimate"]

    estimate = wait_until("a guess in time", guessed, seconds=60)
    assert 50 <= estimate["rows"] <= 5000, "the planner's, who knows the table's size"


@pytest.mark.parametrize("protocol", BY)
def test_rows_end_at_what_was_approved(held, protocol):
    name, dsn = held.agent()
    reader = Reader(dsn, BY[protocol])
    assert held.command("approve", held.waiting(name), "--rows", "300")[0] == 0
    tags = reader.all()
    assert tags.endswith("D" * 300 + "EZ") and "D" * 301 not in tags, tags
    assert b"C53400\0" in reader.heard[-2][1] and reader.heard[-1][1] == b"I"


def test_a_denial_is_heard_with_its_reason_and_the_identical_statement_asks_nobody_again(held):
    name, dsn = held.agent()
    reader = Reader(dsn, BY["simple"])
    approval = held.waiting(name)
    assert held.command("deny", approval, "--reason", "not on a Friday")[0] == 0
    assert reader.all().endswith("EZ")
    fields = wire.error_fields(reader.heard[-2][1])
    assert fields["C"] == "42501" and "not on a Friday" in fields["M"], fields
    with psycopg.connect(dsn.text(), autocommit=True) as connection, pytest.raises(psycopg.Error) as again:
        connection.execute(SQL)
    assert json.loads(again.value.diag.message_detail)["code"] == "approval_denied"


def test_whoever_asks_or_is_asked_for_does_not_decide_and_strangers_do_not(held):
    name, dsn = held.agent()
    reader = Reader(dsn, BY["simple"])
    approval = held.waiting(name)
    for who in ((name, ["agents", "dpo"]), ("stranger", ["agents"]), ("nobody", [])):
        assert held.command("approve", approval, who=who)[0] in (1, 3), who
        assert held.command("show", approval)[1]["state"] == "pending"
    assert "D" not in reader.tags()
    assert held.command("deny", approval, "--reason", "enough")[0] == 0
    assert reader.all().endswith("EZ")


def test_a_cancel_or_a_client_that_leaves_withdraws(held):
    name, dsn = held.agent()
    with psycopg.connect(dsn.text(), autocommit=True) as connection:
        asking = threading.Thread(target=lambda: pytest.raises(psycopg.Error, connection.execute, SQL))
        asking.start()
        approval = held.waiting(name)
        connection.cancel()
        asking.join(20)
        assert held.command("show", approval)[1]["state"] == "withdrawn"
        assert connection.execute("SELECT count(*) FROM held.people").fetchone() == (500,)
    name, dsn = held.agent()
    leaving = wire.Connection(dsn.host, dsn.port)
    leaving.login(dsn)
    leaving.send(wire.query(SQL))
    approval = held.waiting(name)
    leaving.__exit__()
    wait_until("the request is withdrawn", lambda: held.command("show", approval)[1]["state"] == "withdrawn", seconds=10)


def test_statement_timeout_is_respected_and_the_identical_statement_collects_once(held):
    name, dsn = held.agent()
    with psycopg.connect(dsn.text(), autocommit=True) as connection:
        connection.execute("SET statement_timeout = '2s'")
        with pytest.raises(psycopg.Error) as pending:
            connection.execute(SQL)
        assert pending.value.sqlstate == "YG001"
        approval = json.loads(pending.value.diag.message_detail)["retry"]["approval"]
        assert approval == held.waiting(name)
        assert held.command("approve", approval)[0] == 0
        for other in (SQL + " ", SQL.replace("name", "city")):
            with pytest.raises(psycopg.Error) as drifted:
                connection.execute(other)
            assert drifted.value.sqlstate == "YG001", other
        assert len(connection.execute(SQL).fetchall()) == 500
        with pytest.raises(psycopg.Error) as used:
            connection.execute(SQL)
        assert used.value.sqlstate == "YG001"


def test_a_revoked_approval_stops_what_runs_on_it(held):
    name, dsn = held.agent()
    reader = Reader(dsn, wire.query("SELECT p.name, g FROM held.people p, generate_series(1, 20000000) g"))
    approval = held.waiting(name)
    assert held.command("approve", approval)[0] == 0
    wait_until("rows flow", lambda: "D" in reader.tags(), seconds=20)
    assert held.command("revoke", approval, "--reason", "enough of it")[0] == 0
    assert reader.all().endswith("DEZ")
    assert "enough of it" in wire.error_fields(reader.heard[-2][1])["M"]


def test_a_client_that_gives_up_on_silence_hears_something_now_and_then(held):
    name, dsn = held.agent()
    connection = wire.Connection(dsn.host, dsn.port)
    connection.login(dsn)
    connection.socket.settimeout(8)
    connection.send(wire.query(SQL))
    approval = held.waiting(name)
    heard = [connection.receive() for _ in range(4)]
    assert {tag for tag, _ in heard} <= {"T", "N", "S"} and any(approval.encode() in body for tag, body in heard if tag == "N")
    assert held.command("approve", approval)[0] == 0
    assert [tag for tag, _ in connection.receive_until("Z")][-2:] == ["C", "Z"]
