"""Sealed columns that policy lets be looked up: values are counted before the statement runs, whatever brings them."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import psycopg
import pytest

from lib.gateway import SHOP_SQL
from lib.postgres import psql
from lib.yaml_text import dump
from test_drift import Place

PROBES = 3
TABLES = """
DROP SCHEMA IF EXISTS looked_up CASCADE;
CREATE SCHEMA looked_up;
CREATE COLLATION looked_up.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE looked_up.people (id integer PRIMARY KEY, mail text, badge integer, nick text COLLATE looked_up.nocase,
  born date, seen timestamp);
INSERT INTO looked_up.people VALUES (1, 'ann@x.example', 7, 'Ann', '2001-02-03', '2001-02-03 04:05:06'),
  (2, 'bob@x.example', 8, 'Bob', '2001-02-04', '2001-02-03 06:05:06');
CREATE TABLE looked_up.keyed (id integer PRIMARY KEY, mail text UNIQUE, tenant integer, code text, UNIQUE (tenant, code));
INSERT INTO looked_up.keyed VALUES (1, 'ann', 1, 'x');
CREATE TABLE looked_up.refers (id integer PRIMARY KEY, who text REFERENCES looked_up.keyed (mail), note text);
INSERT INTO looked_up.refers VALUES (1, NULL, 'x');
CREATE VIEW looked_up.refers_too AS SELECT id, who FROM looked_up.refers;
CREATE TABLE looked_up.made (id integer PRIMARY KEY, mail text, loud text GENERATED ALWAYS AS (mail || '!') STORED UNIQUE);
CREATE VIEW looked_up.keyed_too AS SELECT id, mail FROM looked_up.keyed;
CREATE TABLE looked_up.clever (id integer, mail text);
CREATE UNIQUE INDEX ON looked_up.clever (left(mail, 1));
GRANT USAGE ON SCHEMA looked_up TO PUBLIC;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA looked_up TO PUBLIC;
"""
POLICY = dump({
    "version": 1,
    "labels": {"shop": {
        "mail": ["looked_up.*.mail"], "badge": ["looked_up.people.badge"],
        "other": ["looked_up.people.nick", "looked_up.people.born", "looked_up.people.seen",
                  "looked_up.keyed.code"],
    }},
    "rules": [
        {"id": "read", "target": "shop", "allow": ["read", "insert", "update", "copy_in"]},
        {"id": "seal", "target": "shop", "who": {"except": {"groups": ["dpo"]}}, "mask": {
            label: {"with": "redact", "lookup": "equality"} for label in ("mail", "badge", "other")
        }},
        {"id": "few", "target": "shop", "who": {"groups": ["agents"]}, "limit": {"probes": PROBES, "window": "24h"}},
    ],
})
BY_MAIL = "SELECT id, mail FROM looked_up.people WHERE mail = "
REDACTED = "[redacted by exeat]"
FOUND = [(1, REDACTED)]


@pytest.fixture
def place(fresh_gateway, server, trust, request):
    name = f"looked-{request.node.name}"[:50].replace("[", "-").replace("]", "")
    database = server.create_database(name)
    psql(database, file=SHOP_SQL)
    psql(database, TABLES)
    gateway = fresh_gateway(name, database=name).policy(POLICY).trust(trust.entry())
    gateway.config["console"] = {"roles": {"admin": ["dpo"], "viewer": ["seats"]}}
    gateway.start()
    yield Looking(gateway, trust)
    gateway.stop()


class Looking(Place):
    def __init__(self, gateway, trust):
        self.gateway = gateway
        self.tokens = {group: trust.token("someone", [group]) for group in ("agents", "dpo", "seats")}
        self.agent, self.officer, self.other = (gateway.dsn(self.tokens[group]) for group in ("agents", "dpo", "seats"))

    def connect(self, dsn=None):
        return psycopg.connect((dsn or self.agent).text(), autocommit=True)


def refused(connection, sql, parameters=None, **how):
    """The payload of the refusal."""
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(sql, parameters, **how)
    return caught.value.sqlstate, json.loads(caught.value.diag.message_detail)


def use_up(connection):
    for number in range(PROBES):
        assert connection.execute(f"{BY_MAIL} 'nobody-{number}'").fetchall() == []


def test_values_are_looked_up_until_the_allowance_is_used_up(place):
    with place.connect() as connection:
        assert connection.execute(f"{BY_MAIL} 'ann@x.example'").fetchall() == FOUND
        assert connection.execute(f"{BY_MAIL} 'cid@x.example'").fetchall() == []
        assert connection.execute(f"{BY_MAIL} 'bob@x.example' AND id > 0").fetchall() == [(2, REDACTED)]
        state, payload = refused(connection, f"{BY_MAIL} 'dan@x.example'")
        assert state == "53400" and payload["code"] == "lookup_probes" and payload["rule"] == "few"
        assert 86000 < payload["retry"]["after_s"] <= 86401 and payload["retry"]["resets_at"].endswith("Z")
        assert "dan@" not in json.dumps(payload)
        # What was tried before costs nothing, and the session is whole.
        assert connection.execute(f"{BY_MAIL} 'ann@x.example'").fetchall() == FOUND
    with place.connect() as another:
        assert refused(another, f"{BY_MAIL} 'dan@x.example'")[0] == "53400", "a new connection is no new allowance"
    [event] = place.recorded("limit.reached")[:1]
    assert event["body"]["label"] == "mail" and event["body"]["used"] == event["body"]["limit"] == PROBES
    assert event["body"]["relation"] == "looked_up.people" and event["principal"]["sub"] == "someone"


def test_the_allowance_is_set_back_by_hand_only(place):
    with place.connect() as connection:
        use_up(connection)
        assert refused(connection, f"{BY_MAIL} 'ann@x.example'")[0] == "53400"
        status, shown, _ = place.command("seats", "limits", "show")
        assert status == 0 and [limit["used"] for limit in shown["limits"]] == [PROBES]
        place.gateway.stop()
        place.gateway.start()
    with place.connect() as connection:
        assert refused(connection, f"{BY_MAIL} 'ann@x.example'")[0] == "53400", "kept through a restart"
        assert place.command("dpo", "limits", "reset", "--label", "mail")[:2] == (0, {"reset": 1})
        assert connection.execute(f"{BY_MAIL} 'ann@x.example'").fetchall() == FOUND


def test_one_value_counts_once_however_it_comes(place):
    with place.connect() as connection:
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            for how in ("%s", "%t", "%b"):
                assert cursor.execute(BY_MAIL + how, ["ann@x.example"]).fetchall()[0][0] == 1
        assert connection.execute(f"{BY_MAIL} 'ann@x.example'").fetchall() == FOUND
        assert connection.execute(BY_MAIL + "ANY (ARRAY[%s, 'ann@x.example'])", ["ann@x.example"]).fetchall() == FOUND
        limits = place.command("seats", "limits", "show")[1]["limits"]
        assert [(limit["label"], limit["used"]) for limit in limits] == [("mail", 1)]
        connection.execute("SELECT id FROM looked_up.people WHERE mail IN ('a', %s)", ["b"])
        assert refused(connection, BY_MAIL + "%s", ["c"], prepare=True)[0] == "53400"
        assert refused(connection, "SELECT id FROM looked_up.people WHERE mail IN ('a', %s)", ["c"])[0] == "53400"
        # Another column is another allowance; a limit is one principal's.
        assert connection.execute("SELECT id FROM looked_up.people WHERE badge = %s", [7]).fetchall() == [(1,)]
    with place.connect(place.other) as other:
        assert other.execute(f"{BY_MAIL} 'bob@x.example'").fetchall() == [(2, REDACTED)]


def test_an_array_counts_each_of_its_values(place):
    with place.connect() as connection:
        mails, badges = ["ann@x.example", "cid@x.example"], [7, 9]
        for binary in ("%t", "%b"):
            assert connection.execute(f"{BY_MAIL} ANY ({binary})", [mails]).fetchall() == FOUND
            found = connection.execute(f"SELECT id FROM looked_up.people WHERE badge = ANY ({binary})", [badges])
            assert found.fetchall() == [(1,)]
        literal = "ANY ('{ann@x.example, \"cid@x.example\"}')"
        assert connection.execute(f"{BY_MAIL} {literal}").fetchall() == FOUND
        limits = place.command("seats", "limits", "show")[1]["limits"]
        assert sorted((limit["label"], limit["used"]) for limit in limits) == [("badge", 2), ("mail", 2)]
        assert refused(connection, f"{BY_MAIL} ANY (%s)", [["ann@x.example", "d", "e"]])[0] == "53400"
        assert refused(connection, f"{BY_MAIL} ANY ('{{d,e}}')")[0] == "53400"
        assert refused(connection, f"{BY_MAIL} ANY (%s)", ["{ann@x.example,{d}}"])[0] == "42501", "which values?"
        connection.execute(f"{BY_MAIL} ANY (%s)", [["d"]])


def test_dates_count_as_the_day_they_are(place):
    with place.connect() as connection:
        by_day = "SELECT id FROM looked_up.people WHERE born = "
        assert connection.execute(f"{by_day} '2001-02-03'").fetchall() == [(1,)]
        assert connection.execute(f"{by_day} date '2001-02-03'").fetchall() == [(1,)]
        for binary in ("%t", "%b"):
            assert connection.execute(by_day + binary, [date(2001, 2, 3)]).fetchall() == [(1,)]
            assert connection.execute(f"{by_day} ANY ({binary})", [[date(2001, 2, 3)]]).fetchall() == [(1,)]
        limits = place.command("seats", "limits", "show")[1]["limits"]
        assert [(limit["label"], limit["used"]) for limit in limits] == [("other", 1)]
        connection.execute("SET DateStyle = 'ISO, DMY'")
        assert refused(connection, f"{by_day} '03/02/2001'")[0] == "42501"
        assert connection.execute(f"{by_day} '2001-02-03'").fetchall() == [(1,)]


def test_one_moment_counted_is_not_another_in_every_time_zone(place):
    """A parameter that the server takes for a time with a zone would be another moment after each SET TimeZone."""
    with place.connect() as connection:
        by_moment = "SELECT id FROM looked_up.people WHERE seen = %(seen)s"
        asked = {"seen": datetime(2001, 2, 3, 4, 5, 6)}
        assert connection.execute(by_moment, asked).fetchall() == [(1,)]
        for zoned in (
            ("SELECT %(seen)s::timestamptz, id FROM looked_up.people WHERE seen = %(seen)s", {"seen": "2001-02-03 04:05:06"}),
            (by_moment, {"seen": datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)}),
        ):
            assert refused(connection, *zoned)[0] == "42501"
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        assert connection.execute(by_moment, asked).fetchall() == [(1,)]
        assert [limit["used"] for limit in place.command("seats", "limits", "show")[1]["limits"]] == [1]


def used(place):
    return {(limit["relation"], limit["label"]): limit["used"] for limit in place.command("seats", "limits", "show")[1]["limits"]}


def test_a_key_that_is_written_counts_what_it_tries(place):
    with place.connect() as connection:
        insert = "INSERT INTO looked_up.keyed (id, mail) VALUES "
        connection.execute(f"{insert} (10, 'a'), (11, 'b')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(f"{insert} (%s, %s)", [12, "ann"])
        assert used(place) == {("looked_up.keyed", "mail"): 3}
        for more in (f"{insert} (13, 'c')", "UPDATE looked_up.keyed SET mail = 'c' WHERE id = 10",
                     f"{insert} (13, 'c') ON CONFLICT DO NOTHING", "SELECT id FROM looked_up.keyed WHERE mail = 'c'"):
            assert refused(connection, more)[0] == "53400", more
        assert refused(connection, f"{insert} (%s, %s)", [13, "c"])[0] == "53400"
        # What was tried is known.
        assert connection.execute(f"{insert} (12, 'ann') ON CONFLICT DO NOTHING").rowcount == 0
        assert connection.execute("SELECT id FROM looked_up.keyed WHERE mail = 'a'").fetchall() == [(10,)]
        # A key of two columns is tried as a whole.
        for tenant in (1, 2):
            connection.execute("UPDATE looked_up.keyed SET tenant = %s, code = 'y' WHERE id = 10", [tenant])
        assert used(place)["looked_up.keyed", "other"] == 2
        assert refused(connection, "UPDATE looked_up.keyed SET code = 'y'")[0] == "42501", "of which tenant?"


def test_what_a_foreign_key_looks_for_counts_as_tried(place):
    with place.connect() as connection:
        insert = "INSERT INTO looked_up.refers (id, who) VALUES "
        connection.execute(f"{insert} (10, 'ann')")
        with pytest.raises(psycopg.errors.ForeignKeyViolation) as missing:
            connection.execute(f"{insert} (%s, %s)", [11, "bob"])
        assert "bob" not in str(missing.value) and "keyed" not in str(missing.value)
        assert used(place) == {("looked_up.keyed", "mail"): 2}
        # The same question, however it is asked.
        assert connection.execute("SELECT id FROM looked_up.keyed WHERE mail = 'ann'").fetchall() == [(1,)]
        connection.execute("UPDATE looked_up.refers SET who = 'ann' WHERE id = 1")
        connection.execute("UPDATE looked_up.refers SET note = 'y' WHERE id = 1")
        assert used(place) == {("looked_up.keyed", "mail"): 2}
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute("UPDATE looked_up.refers SET who = 'c' WHERE id = 1")
        for more in (f"{insert} (13, 'd')", "UPDATE looked_up.refers SET who = 'd' WHERE id = 1",
                     f"{insert} (10, 'ann') ON CONFLICT (id) DO UPDATE SET who = 'd'"):
            state, payload = refused(connection, more)
            assert state == "53400" and "mail" not in json.dumps(payload), "of a column that the statement does not name"
        for sql in (
            f"{insert} (14, lower('ANN'))",
            "INSERT INTO looked_up.refers (id, who) SELECT 14, 'ann'",
            "UPDATE looked_up.refers SET who = note WHERE id = 1",
            "INSERT INTO looked_up.refers_too VALUES (14, 'ann')",
            f"WITH w AS ({insert} (14, 'ann')) INSERT INTO looked_up.refers (id, who) SELECT 15, 'd'",
        ):
            assert refused(connection, sql)[0] == "42501", sql
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.cursor() as cursor:
            with cursor.copy("COPY looked_up.refers (id, who) FROM STDIN") as copy:
                copy.write("16\tann\n")
        assert used(place) == {("looked_up.keyed", "mail"): 3}


def test_what_a_key_would_tell_beyond_its_values_is_refused(place):
    with place.connect() as connection:
        for sql in (
            "INSERT INTO looked_up.clever VALUES (1, 'a')",
            "INSERT INTO looked_up.keyed (id, mail) SELECT 13, 'c'",
            "INSERT INTO looked_up.keyed (id, mail) VALUES (13, lower('C'))",
            "INSERT INTO looked_up.keyed (tenant, code) VALUES (DEFAULT, 'x')",
            "INSERT INTO looked_up.made VALUES (1, 'c')",
            "INSERT INTO looked_up.made (id, mail) VALUES (1, 'c')",
            "UPDATE looked_up.made SET mail = 'c' WHERE id = 1",
            "UPDATE looked_up.made SET id = 1, mail = 'c' WHERE id = 1",
            "INSERT INTO looked_up.keyed_too VALUES (13, 'c')",
            "WITH w AS (INSERT INTO looked_up.keyed (id, mail) VALUES (13, 'c')) INSERT INTO looked_up.keyed_too VALUES (14, 'd')",
            "WITH w AS (INSERT INTO looked_up.keyed (id, mail) VALUES (13, 'c')) "
            "INSERT INTO looked_up.keyed (id, mail) SELECT 14, 'd'",
            "WITH w AS (UPDATE looked_up.keyed SET mail = 'c' WHERE id = 1) UPDATE looked_up.keyed_too SET mail = 'd'",
        ):
            state, payload = refused(connection, sql)
            assert (state, payload["code"]) == ("42501", "masked_column_in_write"), sql
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.cursor() as cursor:
            with cursor.copy("COPY looked_up.keyed (id, mail) FROM STDIN") as copy:
                copy.write("13\tc\n")
        assert used(place) == {}


def test_a_list_longer_than_the_allowance_counts_nothing(place):
    with place.connect() as connection:
        many = ", ".join(f"'{number}'" for number in range(PROBES + 1))
        assert refused(connection, f"SELECT id FROM looked_up.people WHERE mail IN ({many})")[0] == "53400"
        assert place.command("seats", "limits", "show")[1] == {"limits": []}
        use_up(connection)


OTHERS = [
    "SELECT id FROM looked_up.people WHERE mail <> 'a'",
    "SELECT id FROM looked_up.people WHERE NOT mail = 'a'",
    "SELECT id FROM looked_up.people WHERE mail = 'a' OR id = 1",
    "SELECT id FROM looked_up.people WHERE mail LIKE 'a%'",
    "SELECT id FROM looked_up.people WHERE lower(mail) = 'a'",
    "SELECT id FROM looked_up.people WHERE CASE WHEN mail = 'a' THEN true END",
    "SELECT id FROM looked_up.people WHERE mail = 'a' COLLATE \"C\"",
    "SELECT id FROM looked_up.people WHERE nick = 'ann'",
    "SELECT id FROM looked_up.people WHERE born = '01/02/2001'",
    "SELECT mail = 'ann@x.example' AND true AS a FROM looked_up.people ORDER BY mail",
    "SELECT a.id FROM looked_up.people a JOIN looked_up.people b ON a.mail = b.mail",
    "SELECT count(*) FROM looked_up.people a WHERE EXISTS (SELECT 1 FROM looked_up.people b WHERE b.mail = 'a')",
    "COPY (SELECT id FROM looked_up.people WHERE mail = 'a') TO STDOUT",
    "SELECT id FROM looked_up.people WHERE mail = 'a' UNION ALL SELECT 1",
]


def test_every_other_comparison_is_refused_and_not_counted(place):
    with place.connect() as connection, place.connect(place.officer) as officer, officer.cursor() as cursor:
        for sql in OTHERS:
            state, payload = refused(connection, sql)
            assert state == "42501" and payload["code"].startswith("masked_column_in"), (sql, payload)
            # Whoever sees the values may ask for them in every way.
            if sql.startswith("COPY"):
                with cursor.copy(sql) as copy:
                    assert list(copy) == []
            else:
                cursor.execute(sql)
        assert place.command("seats", "limits", "show")[1] == {"limits": []}


def test_prepared_statements_and_cursors_count_what_they_try(place):
    with place.connect() as connection:
        connection.execute(f"PREPARE p AS {BY_MAIL} 'ann@x.example'")
        assert place.command("seats", "limits", "show")[1] == {"limits": []}, "nothing has run"
        for _ in range(2):
            assert connection.execute("EXECUTE p").fetchall() == FOUND
        connection.execute(f"PREPARE q AS {BY_MAIL} $1")
        assert refused(connection, "EXECUTE q('x')")[1]["code"] == "opaque_statement"
        connection.execute("BEGIN")
        connection.execute(f"DECLARE c CURSOR FOR {BY_MAIL} 'bob@x.example'")
        assert connection.execute("FETCH ALL FROM c").fetchall() == [(2, REDACTED)]
        connection.execute("COMMIT")
        assert [limit["used"] for limit in place.command("seats", "limits", "show")[1]["limits"]] == [2]
        connection.execute(f"{BY_MAIL} 'third'")
        state, _ = refused(connection, f"EXPLAIN (COSTS OFF) {BY_MAIL} 'fourth'")
        assert state == "53400", "a plan tells of the value it is made for"
        assert connection.execute("EXECUTE p").fetchall() == FOUND


def test_a_parameter_of_another_type_is_refused(place):
    """numeric: the server would compare the column as a numeric."""
    with place.connect() as connection:
        state, payload = refused(connection, "SELECT id FROM looked_up.people WHERE badge = %s", [Decimal("7.0")])
        assert state == "42501" and payload["code"] == "masked_column_in_predicate", payload
        assert place.command("seats", "limits", "show")[1] == {"limits": []}


def test_a_refused_bind_leaves_the_pipeline_in_order(place):
    with place.connect() as connection:
        use_up(connection)
        with connection.pipeline():
            before = connection.execute("SELECT 1")
            refused_one = connection.execute(BY_MAIL + "%s", ["ann@x.example"])
            with pytest.raises(psycopg.Error):
                refused_one.fetchall()
        assert before.fetchall() == [(1,)]
        assert connection.execute("SELECT 2").fetchall() == [(2,)]
