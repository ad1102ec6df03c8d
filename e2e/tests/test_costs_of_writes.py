"""What a write cost tells the server's own users whether the value that they wrote was there before. Somebody who may
change a sealed column and not read it hears nothing of it: a right guess and a wrong one, rolled back, are told alike."""

import psycopg
import pytest
from psycopg import sql as quoted

from lib.yaml_text import dump
from streams import admin, serving

SECRET, WRONG = "512-66-7331", "512-66-7330"
TABLES = f"""
DROP SCHEMA IF EXISTS guessed CASCADE;
CREATE SCHEMA guessed;
CREATE TABLE guessed.staff (id integer PRIMARY KEY, ssn text, city text);
CREATE INDEX ON guessed.staff (ssn);
CREATE VIEW guessed.listed AS SELECT id, city FROM guessed.staff;
INSERT INTO guessed.staff SELECT i, CASE i WHEN 1 THEN '{SECRET}' ELSE i::text END, 'x' FROM generate_series(1, 50) i;
CREATE TABLE guessed.plain (id integer PRIMARY KEY);
GRANT USAGE ON SCHEMA guessed TO shop_reader;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA guessed TO shop_reader;
"""
POLICY = dump({
    "version": 1,
    "labels": {"shop": {"ssn": ["guessed.staff.ssn"]}},
    "rules": [
        {"id": "writers", "who": {"groups": ["writers"]}, "target": "shop", "allow": ["read", "update"]},
        {"id": "readers", "who": {"groups": ["readers"]}, "target": "shop", "allow": ["read", "update"],
         "relations": ["guessed.plain"]},
        {"id": "look", "who": {"groups": ["readers", "dpo"]}, "target": "shop", "allow": ["read"]},
        {"id": "mask", "who": {"except": {"groups": ["dpo"]}}, "target": "shop", "mask": {"ssn": {"with": "redact"}}},
    ],
})
ANALYZE = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)"
OF_STAFF = "WHERE schemaname = 'guessed' AND relname = 'staff'"
# What of the server's own telling follows the guess: as its owner sees it.
TELLING = {
    "changed in place": f"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables {OF_STAFF}",
    "everything of the table": f"SELECT * FROM pg_stat_xact_user_tables {OF_STAFF}",
    "entries met": f"{ANALYZE} SELECT id FROM guessed.staff WHERE id = 1",
    "entries met behind a view": f"{ANALYZE} SELECT id FROM guessed.listed WHERE id = 1",
}
# Beside them, what is told later or elsewhere.
ASKED = {
    **TELLING,
    "tables": f"SELECT * FROM pg_stat_user_tables {OF_STAFF}",
    "indexes": f"SELECT * FROM pg_stat_user_indexes {OF_STAFF}",
    "blocks of tables": f"SELECT * FROM pg_statio_user_tables {OF_STAFF}",
    "blocks of indexes": f"SELECT * FROM pg_statio_user_indexes {OF_STAFF}",
    "the log": "SELECT * FROM pg_stat_wal",
    "the cluster": "SELECT blks_hit, blks_read, tup_fetched, tup_returned FROM pg_stat_database WHERE datname = current_database()",
    "costs": "EXPLAIN SELECT id FROM guessed.staff WHERE id = 1",
    "sizes": "SELECT relpages FROM pg_class WHERE relname = 'staff'",
    "memory": "SELECT sum(used_bytes) FROM pg_backend_memory_contexts",
}
POSITIONS = ["pg_current_wal_insert_lsn()", "pg_current_wal_lsn()", "pg_current_wal_flush_lsn()", "pg_last_wal_replay_lsn()",
             "pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')", "pg_walfile_name(pg_current_wal_insert_lsn())"]


@pytest.fixture(scope="module")
def gateway(fresh_gateway, shop, trust):
    admin(shop, TABLES)
    yield from serving(fresh_gateway, shop, trust, "costs-of-writes", POLICY)


def told(dsn, guess, asked):
    """What each of `asked` says in the transaction of the guess."""
    said = {}
    with psycopg.connect(dsn.text()) as connection:
        # One plan for all, whatever the statistics say.
        for setting in ("enable_seqscan", "enable_bitmapscan"):
            connection.execute(quoted.SQL("SET {} = off").format(quoted.Identifier(setting)))
        connection.commit()
        connection.execute("UPDATE guessed.staff SET city = city WHERE id = 1")
        connection.execute("UPDATE guessed.staff SET ssn = %s WHERE id = 1", [guess])
        for name, sql in asked.items():
            try:
                with connection.transaction():
                    said[name] = connection.execute(sql).fetchall()
            except psycopg.errors.InsufficientPrivilege as refused:
                said[name] = refused.diag.message_primary
        connection.rollback()
    return said


def test_what_a_guess_costs_is_told_by_the_server_and_not_by_the_gateway(gateway, shop, trust):
    right, wrong = (told(shop.admin, guess, TELLING) for guess in (SECRET, WRONG))
    assert all(right[name] != wrong[name] for name in TELLING), "the test would find nothing"
    dsn = gateway.dsn(trust.token("wendy", ["writers"]))
    right, wrong = (told(dsn, guess, ASKED) for guess in (SECRET, WRONG))
    later = {"tables", "indexes"}  # Counters of what happened before: they differ from one time to the next.
    assert {name: right[name] for name in ASKED if name not in later} == {name: wrong[name] for name in ASKED if name not in later}
    for rows in (right["changed in place"], wrong["changed in place"]):
        assert rows == [(2, None)]
    for name in ("entries met", "entries met behind a view", "costs"):
        assert "plan" in right[name], right[name]
    assert "sealed for you" in right["memory"]
    columns = {"blocks of tables": 8, "blocks of indexes": 2, "the cluster": 4, "sizes": 1}
    for name, hidden in columns.items():
        assert list(right[name][0]).count(None) >= hidden, name


@pytest.mark.parametrize("position", POSITIONS)
def test_how_far_the_log_is_tells_what_a_write_changed_and_nobody_hears_it(gateway, trust, position):
    sql = f"SELECT {position}"
    for group in ("writers", "readers"):
        with psycopg.connect(gateway.dsn(trust.token("wendy", [group])).text(), autocommit=True) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
                connection.execute(sql)
            assert '"code":"opaque_function"' in refused.value.diag.message_detail
            assert connection.execute("SELECT 1").fetchone() == (1,)
    with psycopg.connect(gateway.dsn(trust.token("dora", ["dpo"])).text(), autocommit=True) as connection:
        assert len(connection.execute(sql).fetchall()) == 1, "nothing is sealed for them"


def test_whoever_cannot_guess_may_see_plans(gateway, trust):
    with psycopg.connect(gateway.dsn(trust.token("rita", ["readers"])).text(), autocommit=True) as connection:
        assert "cost=" in connection.execute(ASKED["costs"]).fetchone()[0]
        assert "actual rows" in connection.execute(ASKED["entries met"]).fetchone()[0]
    with psycopg.connect(gateway.dsn(trust.token("wendy", ["writers"])).text(), autocommit=True) as connection:
        assert "cost=" in connection.execute("EXPLAIN ANALYZE SELECT id FROM guessed.plain").fetchone()[0]
        plan = connection.execute("EXPLAIN (COSTS OFF) SELECT id FROM guessed.staff WHERE id = 1").fetchall()
        assert "staff" in plan[0][0]
