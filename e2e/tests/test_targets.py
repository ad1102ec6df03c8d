"""Targets that stand for every database of their server: which database a name means, and that each keeps its own
catalog, masks and record."""

import json
import subprocess

import psycopg
import pytest

from lib.dsn import psql
from lib.gateway import Gateway
from lib.run import wait_until
from lib.yaml_text import dump
from spine import REDACTED
from test_record import lines, of_type

ODD = "a/b c'\"%*ü"
LONG = "r" * 63
POLICY = dump({
    "version": 1,
    "labels": {"all": {"secret": ["*.facts.secret"]}},
    "rules": [
        {"id": "agents", "who": {"groups": ["agents"]}, "allow": ["read"]},
        {"id": "seal", "who": {"groups": ["agents"]}, "target": "all", "mask": {"secret": {"with": "redact"}}},
        {"id": "free", "who": {"groups": ["dpo"]}, "allow": ["all"]},
    ],
})


@pytest.fixture(scope="module")
def databases(server, shop):
    """The same names with other columns in each, made past the gateway."""
    names = {"reports": "secret text, id int", "ledger": "id int, secret text, note text", ODD: "id int", LONG: "id int"}
    for name, columns in names.items():
        admin = server.create_database(name.replace('"', '""')).with_(dbname=name)
        psql(admin, f"CREATE TABLE facts ({columns}); GRANT SELECT ON facts TO shop_reader, shop_dpo")
    psql(server.admin("reports"), "INSERT INTO facts (id, secret) VALUES (1, 'r-secret')")
    psql(server.admin("ledger"), "INSERT INTO facts (id, secret, note) VALUES (2, 'l-secret', 'plain')")
    server.create_database("closed")
    psql(server.admin(), "ALTER DATABASE closed ALLOW_CONNECTIONS false")
    server.create_database("private")
    psql(server.admin(), "REVOKE CONNECT ON DATABASE private FROM public")
    return names


def make(run, server, shop, trust, name, default):
    gateway = Gateway(run, name).policy(POLICY).trust(trust.entry())
    gateway.target(server, "*", shop.logins(), name="all")
    gateway.target(server, "shop", shop.logins(), name="one")
    gateway.config["listen"]["postgres"]["default_target"] = default
    if default is None:
        del gateway.config["listen"]["postgres"]["default_target"]
    return gateway.start(level="debug")


@pytest.fixture(scope="module")
def every(run, program, server, shop, trust, databases):
    """`all` is every database and the default, `one` is the shop."""
    gateway = make(run, server, shop, trust, "every", "all")
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def named(run, program, server, shop, trust, databases):
    """The same without a default target."""
    gateway = make(run, server, shop, trust, "named", None)
    yield gateway
    gateway.stop()


@pytest.fixture(params=["agents", "dpo"])
def token(request, trust):
    """Sealed and unrestricted sessions take different roads."""
    return trust.token("walker", [request.param])


def database(gateway, token, dbname):
    with psycopg.connect(gateway.dsn(token, dbname).text(), autocommit=True) as connection:
        return connection.execute("SELECT current_database()").fetchone()[0]


def refused(gateway, token, dbname):
    with pytest.raises(psycopg.OperationalError) as caught:
        database(gateway, token, dbname)
    return str(caught.value)


@pytest.mark.parametrize("name", ["reports", "ledger", ODD, LONG, "shop"])
def test_a_database_goes_by_target_and_name_and_through_the_default_by_its_name(every, named, token, name):
    assert database(named, token, f"all/{name}") == name
    assert database(every, token, f"all/{name}") == name
    assert database(every, token, name) == name


def test_a_target_has_its_name_before_a_database_of_another_target(every, named, token):
    assert database(named, token, "one") == "shop"
    assert database(every, token, "one") == "shop"
    assert database(named, token, "one/shop") == "shop"


def test_names_that_mean_nothing_are_refused_with_the_form_that_would(named, token):
    for name in ("all", "all/"):
        assert "dbname=all/DATABASE" in refused(named, token, name)
    assert 'target "reports" does not exist' in refused(named, token, "reports")
    assert 'target "one" has no database "reports"' in refused(named, token, "one/reports")


def test_a_name_too_long_means_the_database_cut_there(every, token):
    assert database(every, token, LONG + "rrr") == LONG


def test_the_server_says_itself_which_database_does_not_exist_or_lets_nobody_in(every, token):
    assert 'database "nowhere" does not exist' in refused(every, token, "nowhere")
    assert 'database "closed" is not currently accepting connections' in refused(every, token, "closed")
    assert 'permission denied for database "private"' in refused(every, token, "private")


def test_a_stranger_hears_nothing_of_databases(every, trust):
    late = trust.token("walker", ["agents"], ttl="-1h")
    for name in ("reports", "nowhere"):
        assert "database" not in refused(every, late, name).replace("FATAL", "").split("failed:")[-1]
    nobody = trust.token("walker", ["visitors"])
    for name in ("reports", "nowhere"):
        assert 'no rule lets you use target "all"' in refused(every, nobody, name)


def test_each_database_has_its_own_catalog_and_masks(every, trust, connect):
    agent, officer = (trust.token("walker", [group]) for group in ("agents", "dpo"))
    sessions = {name: connect(every.dsn(agent, name)) for name in ("reports", "ledger")}
    for _ in range(2):
        assert sessions["reports"].execute("SELECT * FROM facts").fetchall() == [(REDACTED, 1)]
        assert sessions["ledger"].execute("SELECT * FROM facts").fetchall() == [(2, REDACTED, "plain")]
        with pytest.raises(psycopg.Error, match="facts"):
            sessions["ledger"].execute("SELECT id FROM facts WHERE secret = 'l-secret'")
    assert connect(every.dsn(officer, "ledger")).execute("SELECT secret FROM facts").fetchall() == [("l-secret",)]


def test_the_record_names_the_database_the_session_is_in(every, trust):
    for group in ("agents", "dpo"):
        for name in ("reports", ODD):
            database(every, trust.token(f"recorded-{group}", [group]), name)
    starts = of_type(lines(every), "session.start")
    found = [(e["target"], e["body"]["database"]) for e in starts if e["principal"]["sub"].startswith("recorded-")]
    assert found == [("all", "reports"), ("all", ODD)] * 2


def test_no_catalog_connection_stands_in_the_way_of_the_owner(every, server, trust):
    dsn = server.create_database("brief")
    psql(dsn, "CREATE TABLE facts (id int, secret text); GRANT SELECT ON facts TO shop_reader")
    with psycopg.connect(every.dsn(trust.token("walker", ["agents"]), "brief").text(), autocommit=True) as connection:
        connection.execute("SELECT * FROM facts")

        def readers():
            sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'brief' AND application_name = 'exeat catalog'"
            return psql(server.admin(), sql).stdout.strip()

        assert readers() == "1"
        wait_until("an idle session needs no catalog connection", lambda: readers() == "0")
        psql(dsn, "INSERT INTO facts VALUES (1, 'hidden')")
        assert connection.execute("SELECT * FROM facts").fetchall() == [(1, REDACTED)]
    # The server waits five seconds for connections to end.
    psql(server.admin(), "DROP DATABASE brief")


def test_readiness_looks_at_the_probe_database(run, program, server, shop, trust, every):
    assert every.readiness()["checks"]["target all"]["state"] == "ok"
    gateway = Gateway(run, "probe").policy(POLICY).trust(trust.entry())
    gateway.target(server, "*", shop.logins(), name="all", probe_database="nowhere")
    gateway.target(server, "shop", shop.logins(), name="one")
    del gateway.config["listen"]["postgres"]["default_target"]
    gateway.start()
    assert gateway.readiness()["checks"]["target all"]["state"] == "degraded"
    gateway.stop()


def test_check_shows_what_the_target_stands_for(every, program):
    done = subprocess.run(
        [program, "check", "--config", every.config_file, "--connect", "--json"], capture_output=True, text=True,
        check=True, timeout=60,
    )
    shown = json.loads(done.stdout)["configuration"]["targets"]
    assert shown["all"]["postgres"]["database"] == "*" and shown["all"]["postgres"]["probe_database"] == "postgres"
    assert shown["one"]["postgres"]["database"] == "shop"
