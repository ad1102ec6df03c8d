"""`hide: true`: what a rule denies or refuses is answered as what does not exist, byte for byte: in simple and extended
protocol, in and out of transactions, by statements, Parse, Describe and COPY. Who nothing is hidden from is the twin."""

import re

import psycopg
import pytest

from lib import wire
from lib.yaml_text import dump
from streams import admin

SCHEMA = """
DROP SCHEMA IF EXISTS veiled CASCADE;
CREATE SCHEMA veiled;
CREATE TABLE veiled.ledger (id integer PRIMARY KEY, amount integer);
INSERT INTO veiled.ledger VALUES (1, 4711);
CREATE TABLE veiled.people (id integer PRIMARY KEY, name text, cipher text);
INSERT INTO veiled.people VALUES (1, 'Ada', 'c-4711');
CREATE VIEW veiled.sums AS SELECT sum(amount) AS total FROM veiled.ledger;
CREATE VIEW veiled.shown AS SELECT id, cipher AS told FROM veiled.people;
CREATE TABLE public.ledger (id integer);
GRANT USAGE ON SCHEMA veiled TO PUBLIC;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA veiled TO shop_reader, shop_dpo;
GRANT SELECT ON public.ledger TO shop_reader;
"""

POLICY = dump({
    "version": 1,
    "labels": {"shop": {"cipher": ["veiled.people.cipher"], "card": ["public.payments.card_number"]}},
    "rules": [
        {"id": "all", "who": {"groups": ["agents", "dpo"]}, "target": "shop", "allow": ["read", "insert", "update"]},
        {"id": "no-ledger", "who": {"groups": ["agents"]}, "target": "shop", "deny": True, "hide": True,
         "relations": ["veiled.ledger"], "reason": "the ledger is not for agents"},
        {"id": "no-cipher", "who": {"groups": ["agents"]}, "target": "shop", "hide": True,
         "mask": {"cipher": {"with": "refuse"}, "card": {"with": "redact"}}},
    ],
})

# A hidden name and one of the same length, with the same first letter, that nothing has.
RELATION, NO_RELATION = "ledger", "lodges"
COLUMN, NO_COLUMN = "cipher", "ciphon"

RELATIONS = [
    "SELECT * FROM veiled.{0}",
    "SELECT amount FROM veiled.{0} WHERE id = 1",
    'SELECT 1 FROM "veiled"."{0}" AS x',
    "SELECT é.id FROM veiled.people é, veiled.{0} l",
    "SELECT {0}.id FROM veiled.people JOIN veiled.{0} ON true",
    "SELECT no_such(1), nothing FROM veiled.{0}",
    "SELECT id FROM veiled.people WHERE id IN (SELECT id FROM veiled.{0})",
    "SELECT veiled.{0}.id FROM veiled.people",
    "SELECT NULL::veiled.{0}",
    "SELECT NULL::veiled.{0}[]",
    "SELECT veiled.{0}(1)",
    "WITH x AS (SELECT * FROM veiled.{0}) SELECT * FROM x",
    "INSERT INTO veiled.{0} VALUES (1, 2)",
    "UPDATE veiled.{0} SET amount = 1 WHERE id = 1",
    "EXPLAIN SELECT * FROM veiled.{0}",
    "DECLARE c CURSOR FOR SELECT * FROM veiled.{0}",
    "COPY veiled.{0} TO STDOUT",
    "COPY (SELECT * FROM veiled.{0}) TO STDOUT",
    "COPY veiled.{0} FROM STDIN",
    "PREPARE p AS SELECT * FROM veiled.{0}",
    "SELECT 1; SELECT * FROM veiled.{0}; SELECT 2",
    "LOCK TABLE veiled.{0}",
    "TRUNCATE veiled.{0}",
    "TABLE veiled.{0}",
    "SELECT * FROM veiled.U&\"~006c{1}\" UESCAPE '~'",
]
COLUMNS = [
    "SELECT {0} FROM veiled.people",
    "SELECT p.{0}, 1 FROM veiled.people p",
    'SELECT id FROM veiled.people WHERE "{0}" = $$c-4711$$',
    "SELECT no_such({0}) FROM veiled.people",
    "SELECT id FROM veiled.people ORDER BY {0}",
    "SELECT id FROM veiled.people GROUP BY id, {0}",
    "SELECT (p).{0} FROM veiled.people p",
    "SELECT {0}(p) FROM veiled.people p",
    "SELECT id FROM veiled.people a JOIN veiled.people b USING ({0})",
    "SELECT x.{0} FROM (SELECT {0} FROM veiled.people) x",
    "INSERT INTO veiled.people (id, {0}) VALUES (9, 'x')",
    "UPDATE veiled.people SET {0} = 'x' WHERE id = 1",
    "UPDATE veiled.people SET name = {0} WHERE id = 1",
    "INSERT INTO veiled.people (id) VALUES (9) RETURNING {0}",
    "COPY veiled.people ({0}) TO STDOUT",
    "COPY (SELECT {0} FROM veiled.people) TO STDOUT",
    "SELECT U&\"!0063{1}\" UESCAPE '!' FROM veiled.people",
]


@pytest.fixture(scope="module")
def veiled(fresh_gateway, shop, trust):
    admin(shop, SCHEMA)
    made = fresh_gateway("veiled", policy=POLICY).trust(trust.entry()).start(level="debug")
    yield made
    made.stop()
    admin(shop, "DROP SCHEMA veiled CASCADE; DROP TABLE public.ledger")


def in_every_way(sql):
    """The conversations in which a client may send a statement, as cycles."""
    extended = wire.parse(sql) + wire.describe("S") + wire.bind() + wire.describe() + wire.execute() + wire.SYNC
    ahead = wire.parse("SELECT 1") + wire.bind() + wire.execute() + wire.parse(sql, "n") + wire.bind(statement="n") + wire.SYNC
    begin, after, rollback = wire.query("BEGIN"), wire.query("SELECT 1"), wire.query("ROLLBACK")
    return [
        wire.query(sql), after, extended, after, ahead, after,
        begin, wire.query(sql), after, rollback, begin, extended, after, rollback,
        begin, wire.query("SAVEPOINT a"), extended, wire.query("ROLLBACK TO a"), after, rollback,
    ]


def transcript(dsn, cycles):
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        return [connection.cycle(cycle) for cycle in cycles]


def comparable(heard, there, absent):
    named = [[(tag, body.replace(absent.encode(), there.encode())) for tag, body in cycle] for cycle in heard]
    return [[(tag, re.sub(rb"req_[0-9a-z_-]+", b"req", body)) for tag, body in cycle] for cycle in named]


@pytest.mark.parametrize(("there", "absent", "texts"), [(RELATION, NO_RELATION, RELATIONS), (COLUMN, NO_COLUMN, COLUMNS)])
def test_what_is_hidden_is_answered_as_what_does_not_exist(veiled, trust, there, absent, texts):
    dsn = veiled.dsn(trust.token("agent-7", ["agents"]))
    for text in texts:
        hidden = comparable(transcript(dsn, in_every_way(text.format(there, there[1:]))), there, absent)
        nowhere = comparable(transcript(dsn, in_every_way(text.format(absent, absent[1:]))), there, absent)
        assert hidden == nowhere, text
        assert any(tag == "E" for tag, _ in hidden[0]), text
        assert b"4711" not in b"".join(body for cycle in hidden for _, body in cycle), text


@pytest.mark.parametrize("sql", [RELATIONS[0], RELATIONS[3], RELATIONS[8], COLUMNS[0], COLUMNS[1], COLUMNS[10]])
def test_the_answer_is_the_servers(veiled, trust, server, sql):
    name = COLUMN if sql in COLUMNS else RELATION
    absent = NO_COLUMN if sql in COLUMNS else NO_RELATION
    dsn = veiled.dsn(trust.token("agent-7", ["agents"]))
    (heard,) = transcript(dsn, [wire.query(sql.format(name))])
    with wire.Connection(server.admin("shop").host, server.admin("shop").port, ca=server.ca) as direct:
        direct.login(server.admin("shop"))
        said = direct.cycle(wire.query(sql.format(absent)))
    fields = [{code: value.replace(absent, name) for code, value in wire.error_fields(body).items() if code not in "DH"}
              for tag, body in said if tag == "E"]
    assert [wire.error_fields(body) for tag, body in heard if tag == "E"] == fields


def test_hints_do_not_name_what_is_hidden(veiled, trust):
    dsn = veiled.dsn(trust.token("agent-7", ["agents"]))
    for text in ["SELECT ciphre FROM veiled.people", "SELECT p.ciphe FROM veiled.people p", "SELECT nam FROM veiled.people"]:
        (heard,) = transcript(dsn, [wire.query(text)])
        (fields,) = [wire.error_fields(body) for tag, body in heard if tag == "E"]
        assert fields["C"] == "42703" and "H" not in fields and "D" not in fields
        assert b"cipher" not in b"".join(body for _, body in heard)


def test_what_takes_hidden_columns_along_is_refused_without_their_names(veiled, trust):
    dsn = veiled.dsn(trust.token("agent-7", ["agents"]))
    for text in [
        "SELECT * FROM veiled.people", "SELECT p FROM veiled.people p", "SELECT row_to_json(p) FROM veiled.people p",
        "SELECT x FROM veiled.people AS p (a, b, x)", "COPY veiled.people TO STDOUT", "TABLE veiled.people",
        "SELECT id FROM veiled.people NATURAL JOIN public.ledger", "SELECT * FROM veiled.shown",
        "SELECT id FROM veiled.people p WHERE p::text LIKE '%4711%'",
    ]:
        (heard,) = transcript(dsn, [wire.query(text)])
        (fields,) = [wire.error_fields(body) for tag, body in heard if tag == "E"]
        assert fields["C"] == "42501", text
        said = b"".join(body for _, body in heard)
        assert b"cipher" not in said and b"4711" not in said and b"no-cipher" not in said, text


def test_what_reaches_a_hidden_relation_does_not_name_it(veiled, trust):
    dsn = veiled.dsn(trust.token("agent-7", ["agents"]))
    (heard,) = transcript(dsn, [wire.query("SELECT total FROM veiled.sums")])
    (fields,) = [wire.error_fields(body) for tag, body in heard if tag == "E"]
    assert fields["C"] == "42501"
    said = b"".join(body for _, body in heard)
    assert b"ledger" not in said and b"agents" not in said and b"4711" not in said


def test_an_explanation_names_nothing_that_is_hidden(veiled, trust):
    with psycopg.connect(veiled.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True) as agent:
        for text in [
            "SELECT * FROM veiled.people", "SELECT p FROM veiled.people p", "SELECT * FROM veiled.shown",
            "SELECT total FROM veiled.sums", "SELECT x FROM veiled.people AS p (a, b, x)", "COPY veiled.people TO STDOUT",
        ]:
            agent.execute("SET exeat.explain = on")
            (told,) = agent.execute(text).fetchone()
            assert "cipher" not in told and "ledger" not in told.replace(text, "") and "agents" not in told, (text, told)
            assert '"decision":"refuse"' in told.replace(" ", ""), told


def test_a_relation_of_the_same_name_elsewhere_is_there(veiled, trust):
    with psycopg.connect(veiled.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True) as agent:
        assert agent.execute("SELECT count(*) FROM public.ledger").fetchall() == [(0,)]
        assert agent.execute("SELECT id, name FROM veiled.people").fetchall() == [(1, "Ada")]
        policy = agent.execute("SHOW exeat.policy").fetchone()[0]
        assert "ledger" not in policy and "cipher" not in policy and "card_number" in policy
        with pytest.raises(psycopg.errors.UndefinedTable):
            agent.execute("SELECT p.id FROM public.ledger p, veiled.ledger")


@pytest.mark.parametrize("setting", ["veiled, public", "veiled"])
@pytest.mark.parametrize(("sql", "state"), [
    ("SELECT id + 0 FROM ledger", "42P01"),
    ("SELECT (SELECT amount FROM ledger LIMIT 1) FROM (VALUES (1)) v (amount)", "42P01"),
    ("SELECT (SELECT cipher FROM people LIMIT 1) FROM (VALUES (1)) v (cipher)", None),
    ("SELECT (SELECT cipher || '' FROM people LIMIT 1) FROM (VALUES ('x')) v (cipher)", None),
    ("SELECT x.cipher FROM (SELECT * FROM people) x", "42703"),
    ("SELECT cipher FROM people p, (VALUES (1)) v (cipher)", None),
    ("SELECT cipher FROM people AS p (cipher)", None),
    ("SELECT NULL::ledger", "42704"),
])
def test_what_is_hidden_is_not_looked_past(veiled, trust, setting, sql, state):
    """The server would find it there, and nothing that stands behind it."""
    dsn = veiled.dsn(trust.token("agent-7", ["agents"]))
    _, heard = transcript(dsn, [wire.query(f"SET search_path = {setting}"), wire.query(sql)])
    (fields,) = [wire.error_fields(body) for tag, body in heard if tag == "E"]
    assert fields["C"] == state or state is None
    assert b"4711" not in b"".join(body for _, body in heard)


def test_its_twin_sees_everything(veiled, trust):
    with psycopg.connect(veiled.dsn(trust.token("dana", ["dpo"])).text(), autocommit=True) as officer:
        assert officer.execute("SELECT amount FROM veiled.ledger").fetchall() == [(4711,)]
        assert officer.execute("SELECT * FROM veiled.people").fetchall() == [(1, "Ada", "c-4711")]
        assert officer.execute("SELECT total FROM veiled.sums").fetchall() == [(4711,)]
