"""What the twins' oracle reads in the query trees of a real server, and that it says so where it cannot read one."""

import os

import pytest

from lib import wire
from lib.postgres import Server
from twins_support import oracle, runner, sources, trees
from twins_support.transcript import Unit

SCHEMA = """
CREATE TABLE makers (id int PRIMARY KEY, name text, country text, note text);
CREATE TABLE parts (id int, maker int, code text)
"""


@pytest.fixture(scope="module")
def dsn(run):
    """Of a server of its own: the harness speaks to servers without TLS."""
    server = Server(run, int(os.environ.get("EXEAT_E2E_PG", "15")), auth="trust", title="trees")
    made = server.create_database("trees")
    wire.Connection(made.host, made.port).login(made).cycle(wire.query(SCHEMA))
    return made


@pytest.fixture
def columns(dsn):
    """(names of the columns of each output, names of all of them) in the tree of a statement."""
    connection = oracle.prints_trees(dsn)
    names = "SELECT attrelid, attnum, attrelid::regclass || '.' || attname FROM pg_attribute WHERE attnum > 0 AND attrelid >= 16384"
    rows = [oracle.cells(body) for tag, body in connection.cycle(wire.query(names)) if tag == "D"]
    named = {(int(relation), int(number)): name for relation, number, name in rows}

    def read(sql):
        outputs, everything = trees.read(oracle.printed_tree(connection, sql))
        return [{named[one] for one in output} for output in outputs], {named[one] for one in everything}

    yield read
    connection.socket.close()


def test_the_servers_list_of_excluded_is_not_what_a_statement_reads(columns):
    """`excluded` has every column of its table; this statement reads one of them."""
    _, everything = columns(
        "INSERT INTO makers (id, name) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET name = trim(excluded.note) RETURNING id"
    )
    assert everything == {"makers.id", "makers.note"}


def test_what_do_update_reads_through_excluded_counts(columns):
    _, everything = columns(
        "INSERT INTO makers (id, name) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET note = excluded.name "
        "WHERE excluded.country > (SELECT max(code) FROM parts)"
    )
    assert everything == {"makers.id", "makers.name", "makers.country", "parts.code"}


def test_values_and_functions_pass_on_what_they_are_made_of(columns):
    outputs, _ = columns("SELECT v.b, v.a FROM (VALUES (1, (SELECT max(note) FROM makers)), (2, (SELECT max(code) FROM parts))) v(a, b)")
    assert outputs == [{"makers.note", "parts.code"}, set()]
    outputs, _ = columns("SELECT x, m.id FROM makers m, string_to_table(m.note, '-') x")
    assert outputs == [{"makers.note"}, {"makers.id"}]


def test_samples_and_names_with_special_characters_are_read(columns):
    outputs, everything = columns('SELECT m."Name)[" FROM (SELECT id, note FROM makers TABLESAMPLE system (1)) AS m("a {:b", "Name)[")')
    assert outputs == [{"makers.note"}] and everything == {"makers.note"}
    long = "_".join("(){}" for _ in range(10))
    outputs, _ = columns(f'SELECT "{long}", "{long[:-1]}x" FROM (SELECT name AS "{long}", note AS "{long[:-1]}x" FROM makers) m')
    assert outputs == [{"makers.name"}, {"makers.note"}]


@pytest.mark.parametrize("check", ["a IN (1, 2)", "a = 1 AND NULL", "a BETWEEN 1 AND 2", "a IS DISTINCT FROM b"])
def test_a_definition_is_no_query(columns, check):
    """Its expressions are not resolved yet, and printed in a way of their own."""
    assert columns(f"CREATE TABLE made (a int CHECK ({check}), b int DEFAULT NULL)") == ([], set())


@pytest.mark.parametrize(("text", "words"), [
    ("({QUERY :commandType 1 :rtable <> :targetList ({TARGETENTRY :expr {NEWEXPR :a 1} :resjunk false :ressortgroupref 0})})", "node NEWEXPR"),
    ("({QUERY :commandType 1 :rtable <> :jointree {} :targetList <>})", "node of a kind that the server does not print"),
    ("({QUERY :commandType 1 :rtable ({RANGETBLENTRY :rtekind 12}) :targetList <>})", "range of kind 12"),
    ("({QUERY :rtable <>", "ends too early"),
    ("({QUERY :rtable <>})", "QUERY without commandType"),
])
def test_what_cannot_be_read_is_named(text, words):
    with pytest.raises(trees.Unreadable, match=words):
        trees.read(text)


@pytest.mark.parametrize("name", ["stats_reset", "pg_postmaster_start_time()", "txid_current_snapshot()", "pg_current_xact_id()", "inet_server_addr()"])
def test_what_two_equal_servers_do_not_agree_on_is_left_out(name):
    assert sources.OF_A_SERVER.search(f"select {name} as c0 from pg_catalog.pg_stat_something")


@pytest.mark.parametrize("name", ["idx_blks_read", "n_tup_hot_upd", "pg_current_wal_lsn()", "wal_bytes"])
def test_what_the_gateway_seals_of_a_server_is_compared(name):
    assert not sources.OF_A_SERVER.search(f"select {name} as c0 from pg_catalog.pg_stat_something")


def test_the_order_of_catalogs_is_their_own_and_that_of_tables_is_not():
    def of(relations):
        return runner.of_catalogs(Unit("sqlsmith", [f"select 1 from {relations} where pg_catalog.pi() > 3"]))

    assert of("information_schema.tables as ref_0, pg_catalog.pg_class as ref_1")
    assert of("pg_stats")
    assert not of("pg_catalog.pg_class as ref_0, public.customers as ref_1") and not of("customers c")
