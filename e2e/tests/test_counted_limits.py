"""`limit` by rows, bytes and masked cells: exactly so much leaves within its window, however many connections and gateways
take of it, and what a statement did not take is there for the next."""

import json
import os
import random
import threading
import time

import psycopg
import pytest

from lib import wire
from lib.run import wait_until
from lib.yaml_text import dump
from streams import admin, session, tags_of
from test_approvals_of_statements import Held
from test_holds import HOLD
from test_shared_store import url

ROWS, BYTES, CELLS, MANY = 100, 8192, 60, 2000
RELATIONS = ("one", "two", "wide", "sealed", "shared", "many")
SEED = int(os.environ.get("SEED") or time.time())
SCHEMA = "DROP SCHEMA IF EXISTS counted CASCADE; CREATE SCHEMA counted; GRANT USAGE ON SCHEMA counted TO PUBLIC;" + "".join(
    f"CREATE TABLE counted.{name} (id integer PRIMARY KEY, email text NOT NULL, note text NOT NULL);"
    f"INSERT INTO counted.{name} SELECT i, 'mail' || i || '@example.com', repeat('x', 100) FROM generate_series(1, 500) i;"
    f"GRANT SELECT ON counted.{name} TO PUBLIC;"
    for name in RELATIONS
)


def limit(name, relations, limit):
    return {
        "id": name, "who": {"groups": ["agents"]}, "target": "shop", "relations": [f"counted.{name}" for name in relations],
        "limit": {**limit, "window": "1h"},
    }


POLICY = dump({
    "version": 1,
    "labels": {"shop": {"email": [f"counted.{name}.email" for name in RELATIONS]}},
    "rules": [
        {"id": "all", "who": {"groups": ["agents", "dpo"]}, "target": "shop", "allow": ["read"]},
        {"id": "seal", "who": {"groups": ["agents"]}, "target": "shop", "mask": {"email": {"with": "redact"}}},
        limit("rows", ["one", "two"], {"rows": ROWS}),
        limit("bytes", ["wide"], {"bytes": f"{BYTES // 1024}KiB"}),
        limit("cells", ["sealed"], {"cells": CELLS}),
        limit("many", ["many"], {"rows": MANY}),
        {"id": "shared", "who": {"groups": ["agents"]}, "target": "shop", "relations": ["counted.shared"],
         "hold": {**HOLD, "rows": ROWS, "wait": "60s", "expires": "5m"}},
    ],
})


class Counting(Held):
    def limits(self, *arguments):
        status, printed = self.run("limits", *arguments, who=("admin", ["ops"]))
        assert status == 0, printed
        return printed

    def run(self, *arguments, who):
        status, printed, said = self.gateway.command(self.trust.token(*who), *arguments)
        return status, said if printed is None else printed

    def beside(self, name):
        """The same agent at this gateway."""
        return self.gateway.dsn(self.trust.token(name, ["agents"]))


@pytest.fixture(scope="module")
def gateways(fresh_gateway, server, shop, trust, run):
    """Two gateways with one store on PostgreSQL."""
    admin(shop, SCHEMA)
    store = url(server.create_database("counted_state"))
    made = []
    for number in range(2):
        gateway = fresh_gateway(f"counted-{number}", policy=POLICY).trust(trust.entry())
        gateway.config["console"] = {"roles": {"viewer": ["dpo"], "admin": ["ops"]}}
        gateway.config["store"] = {"file": str(run.secret_file(f"counted-{number}.store", store + "\n"))}
        if made:
            gateway.config["keys"] = str(made[0].gateway.folder / "keys")
        made.append(Counting(gateway.start(level="debug"), trust))
    yield made
    for counting in made:
        counting.gateway.stop()
    admin(shop, "DROP SCHEMA counted CASCADE")


@pytest.fixture
def one(gateways):
    return gateways[0]


def pulled(connection, sql, extended=False):
    """(rows that came, the error's fields or None); the connection is in step behind it."""
    heard = connection.cycle(wire.parse(sql) + wire.bind() + wire.execute() + wire.SYNC if extended else wire.query(sql))
    errors = [wire.error_fields(body) for tag, body in heard if tag == "E"]
    return tags_of(heard).count("D"), errors[0] if errors else None


LIMITED = {"rows": ("one", "row_limit", ROWS), "cells": ("sealed", "cell_limit", CELLS), "bytes": ("wide", "byte_limit", None)}


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("unit", LIMITED)
def test_what_is_within_the_limit_has_left_and_the_rest_does_not(one, unit, extended):
    relation, code, amount = LIMITED[unit]
    _, dsn = one.agent()
    with session(dsn) as connection:
        rows, error = pulled(connection, f"SELECT id, email, note FROM counted.{relation}", extended)
        detail = json.loads(error["D"])
        assert error["C"] == "53400" and detail["code"] == code, error
        assert detail["retry"]["resets_at"].endswith("Z") and detail["retry"]["after_s"] > 0
        # Each row is its number, "[redacted]" or the like, and 100 letters.
        assert rows == amount if amount else BYTES // 150 <= rows <= BYTES // 103, rows
        assert pulled(connection, "SELECT 1") == (1, None)
        if amount:
            assert pulled(connection, f"SELECT email FROM counted.{relation} WHERE id = 1", extended)[1]["C"] == "53400"


def test_a_limit_says_when_it_resets_and_somebody_may_reset_it(one):
    name, dsn = one.agent()
    with session(dsn) as connection:
        assert pulled(connection, "SELECT id FROM counted.one WHERE id <= 30") == (30, None)

        def used():
            return [(entry["kind"], entry["used"]) for entry in one.limits("show", "--principal", name)["limits"]]

        wait_until("what was not needed is given back", lambda: used() == [("rows", 30)], seconds=10)
        assert pulled(connection, "SELECT id FROM counted.one WHERE id <= 71")[1]["C"] == "53400"
        assert one.limits("reset", "--principal", name)["reset"] >= 1
        assert one.limits("show", "--principal", name)["limits"] == []
        assert pulled(connection, "SELECT id FROM counted.one WHERE id <= 100") == (ROWS, None)


def test_relations_and_agents_are_counted_apart(one):
    with session(one.agent()[1]) as connection, session(one.agent()[1]) as other:
        for relation in ("one", "two"):
            sql = f"SELECT id FROM counted.{relation} WHERE id <= {ROWS}"
            assert pulled(connection, sql) == (ROWS, None)
            assert pulled(connection, sql)[1]["C"] == "53400"
        assert pulled(other, f"SELECT id FROM counted.one WHERE id <= {ROWS}") == (ROWS, None)


def at_once(dsns, sql):
    """What came at each, all of them begun together."""
    start, came = threading.Barrier(len(dsns)), []

    def take(dsn):
        with session(dsn) as connection:
            start.wait(20)
            came.append(pulled(connection, sql))

    threads = [threading.Thread(target=take, args=(dsn,)) for dsn in dsns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert len(came) == len(dsns)
    return came


def rest_of(one, name, relation, taken):
    """What is left after everybody ended passes, and not a row more."""
    def given_back():
        return sum(entry["used"] for entry in one.limits("show", "--principal", name)["limits"]) == taken

    wait_until("what nobody got is given back", given_back, seconds=10)
    with session(one.beside(name)) as connection:
        assert pulled(connection, f"SELECT id FROM counted.{relation} LIMIT {ROWS - taken}") == (ROWS - taken, None)
        assert pulled(connection, f"SELECT id FROM counted.{relation} LIMIT 1")[1]["C"] == "53400"


@pytest.mark.parametrize("places", [1, 2], ids=["one gateway", "two gateways"])
@pytest.mark.parametrize("each", [7, 30, 500])
def test_ten_connections_at_once_take_of_one_limit(gateways, places, each):
    name, _ = gateways[0].agent()
    dsns = [gateways[number % places].beside(name) for number in range(10)]
    came = at_once(dsns, f"SELECT id FROM counted.one WHERE id <= {each}")
    taken = sum(rows for rows, _ in came)
    assert 0 < taken <= ROWS
    assert all(error is None or error["C"] == "53400" for _, error in came)
    if each * 10 <= ROWS:
        assert taken == each * 10
    if taken < ROWS:
        rest_of(gateways[0], name, "one", taken)


def test_what_short_statements_leave_of_the_limit_is_there_for_the_next(gateways):
    first, second = gateways
    name, dsn = first.agent()
    chance = random.Random(SEED)
    sizes = [[chance.randrange(1, 9) for _ in range(60)] for _ in range(6)]
    print(f"SEED={SEED}")
    came = []

    def read(dsn, sizes):
        with session(dsn) as connection:
            came.extend(pulled(connection, f"SELECT id FROM counted.many WHERE id <= {size}") for size in sizes)

    places = [gateway.beside(name) for gateway in (first, second) for _ in range(3)]
    readers = [threading.Thread(target=read, args=place) for place in zip(places, sizes, strict=True)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(40)
    taken = sum(map(sum, sizes))
    assert [error for _, error in came if error] == []
    assert (len(came), sum(rows for rows, _ in came)) == (6 * 60, taken) and taken < MANY
    # The other gateway gives back what lies there by itself; this one before it answers.
    used = {"rows": 0}

    def shown():
        with session(dsn) as connection:
            row = next(body for tag, body in connection.cycle(wire.query("SHOW exeat.limits")) if tag == "D")
            used.update(json.loads(row[row.index(b"{"):])["used"])
        return used["rows"] == taken

    wait_until("each gateway gives back what nobody takes", shown, seconds=10)
    with session(dsn) as connection:
        assert pulled(connection, "SELECT id FROM counted.many LIMIT 3") == (3, None)
    second.gateway.stop()
    second.gateway.start()
    assert sum(entry["used"] for entry in first.limits("show", "--principal", name)["limits"]) == taken + 3
    with session(dsn) as connection:
        left = MANY - taken - 3
        while left > 0:
            size = min(left, 500)
            assert pulled(connection, f"SELECT id FROM counted.many LIMIT {size}") == (size, None)
            left -= size
        assert pulled(connection, "SELECT id FROM counted.many LIMIT 1")[1]["C"] == "53400"


def test_one_allowance_and_one_approval_at_two_gateways(gateways):
    first, second = gateways
    name, dsn = first.agent()
    sql = "SELECT id FROM counted.shared WHERE id <= {}"
    with psycopg.connect(dsn.text(), autocommit=True) as here, psycopg.connect(second.beside(name).text(), autocommit=True) as there:
        for connection in (here, there):
            assert len(connection.execute(sql.format(50)).fetchall()) == 50
        # Used up by both; who waits at one is let go by who decides at the other.
        came = []
        asking = threading.Thread(target=lambda: came.extend(there.execute(sql.format(10)).fetchall()))
        asking.start()
        approval = second.waiting(name)
        assert first.command("approve", approval)[0] == 0
        asking.join(20)
        assert len(came) == 10
        # Approved at one, collected at the other.
        here.execute("SET statement_timeout = '1s'")
        there.execute("SET statement_timeout = '1s'")
        with pytest.raises(psycopg.Error) as pending:
            here.execute(sql.format(20))
        assert pending.value.sqlstate == "YG001"
        approval = json.loads(pending.value.diag.message_detail)["retry"]["approval"]
        assert first.command("approve", approval)[0] == 0
        assert len(there.execute(sql.format(20)).fetchall()) == 20
        with pytest.raises(psycopg.Error) as used:
            here.execute(sql.format(20))
        assert used.value.sqlstate == "YG001", "one use is one use, wherever"
        # Approved at one, revoked at the other.
        with pytest.raises(psycopg.Error) as pending:
            here.execute(sql.format(30))
        approval = json.loads(pending.value.diag.message_detail)["retry"]["approval"]
        assert first.command("approve", approval)[0] == 0
        assert second.command("revoke", approval, "--reason", "changed my mind")[0] == 0
        with pytest.raises(psycopg.Error) as revoked:
            here.execute(sql.format(30))
        assert revoked.value.sqlstate == "42501" and "changed my mind" in str(revoked.value)
