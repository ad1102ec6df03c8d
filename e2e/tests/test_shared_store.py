"""Gateways with one state store on PostgreSQL: they count together, hear of each other, and refuse where it is gone."""

import time
import urllib.parse

import psycopg
import pytest

from lib.gateway import SHOP_SQL
from lib.postgres import Server, psql
from lib.run import HarnessError, wait_until
from lib.yaml_text import dump
from spine import REDACTED
from test_drift import Place

PROBES = 3
POLICY = dump({
    "version": 1,
    "labels": {"shop": {"email": ["public.customers.email"]}},
    "rules": [
        {"id": "read", "target": "shop", "allow": ["read"]},
        {"id": "seal", "target": "shop", "who": {"except": {"groups": ["dpo"]}},
         "mask": {"email": {"with": "redact", "lookup": "equality"}}},
        {"id": "few", "target": "shop", "who": {"groups": ["agents"]}, "limit": {"probes": PROBES, "window": "24h"}},
    ],
})
BY_EMAIL = "SELECT id FROM customers WHERE email = "
# What one gateway changes the others know within a second; the rest is for a busy machine.
HEARD_SECONDS_MAX = 10


def url(dsn, **parameters):
    user, password = (urllib.parse.quote(part, safe="") for part in (dsn.user, dsn.password))
    parameters = {"sslmode": dsn.sslmode, **({"sslrootcert": dsn.sslrootcert} if dsn.sslrootcert else {}), **parameters}
    return f"postgres://{user}:{password}@{dsn.host}:{dsn.port}/{dsn.dbname}?{urllib.parse.urlencode(parameters)}"


@pytest.fixture
def made(fresh_gateway, server, trust, run, request):
    """Makes gateways over one shop and one store, with one master key; stopped at the end."""
    name = request.node.name[:40]
    admin = server.create_database(name)
    psql(admin, file=SHOP_SQL)
    gateways = []

    def make(store):
        number = len(gateways)
        gateway = fresh_gateway(f"{name}-{number}", POLICY, database=name).trust(trust.entry())
        del gateway.config["targets"]["shop"]["postgres"]["unclassified"]
        gateway.config["console"] = {"roles": {"admin": ["dpo"], "viewer": ["seats"]}}
        gateway.config["store"] = {"file": str(run.secret_file(f"{name}-{number}.store", store + "\n"))}
        if gateways:
            gateway.config["keys"] = str(gateways[0].folder / "keys")
        gateways.append(gateway)
        return gateway

    make.admin = admin
    yield make
    for gateway in gateways:
        if gateway.process is not None:
            gateway.stop()


def refusal(connection, sql):
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(sql)
    return caught.value.sqlstate


def test_two_gateways_count_together_and_hear_of_each_other(made, server, trust):
    store = url(server.create_database("shared_state"))
    places = [Place(made(store).start(), made.admin, trust) for _ in range(2)]
    with psycopg.connect(places[0].agent.text(), autocommit=True) as one:
        with psycopg.connect(places[1].agent.text(), autocommit=True) as other:
            for number, connection in enumerate([one, other, one]):
                assert connection.execute(f"{BY_EMAIL} 'nobody-{number}'").fetchall() == []
            assert refusal(one, f"{BY_EMAIL} 'dan'") == refusal(other, f"{BY_EMAIL} 'dan'") == "53400"
            assert other.execute(f"{BY_EMAIL} 'nobody-0'").fetchall() == [], "what was tried at one is free at the other"
    for place in places:
        status, shown, _ = place.command("seats", "limits", "show")
        assert status == 0 and [limit["used"] for limit in shown["limits"]] == [PROBES]
    assert places[1].command("dpo", "limits", "reset")[:2] == (0, {"reset": 1})
    assert places[0].read(f"{BY_EMAIL} 'dan'") == []

    places[0].change("CREATE TABLE made AS SELECT 'plain' AS a; GRANT SELECT ON made TO PUBLIC")
    assert [place.read("SELECT a FROM made") for place in places] == [[(REDACTED,)]] * 2
    with psycopg.connect(places[1].agent.text(), autocommit=True) as open_session:
        assert open_session.execute("SELECT a FROM made").fetchall() == [(REDACTED,)]
        assert places[0].command("dpo", "discover", "--accept")[0] == 0
        accepted = time.monotonic()
        wait_until("the other gateway knows", lambda: open_session.execute("SELECT a FROM made").fetchall() == [("plain",)])
        assert time.monotonic() - accepted < HEARD_SECONDS_MAX


def test_while_the_store_is_gone_what_needs_it_is_refused_and_then_it_goes_on(made, run, authority, trust):
    with_tls = {"pair": authority.issue("store"), "ca": authority.cert}
    server = Server(run, title="store", **with_tls)
    try:
        gateway = made(url(server.create_database("state"))).start()
        place = Place(gateway, made.admin, trust)
        with psycopg.connect(place.agent.text(), autocommit=True) as connection:
            assert connection.execute(f"{BY_EMAIL} 'nobody-0'").fetchall() == []
            server.stop()
            state = refusal(connection, f"{BY_EMAIL} 'nobody-1'")
            assert state.startswith(("58", "XX")), state
            # What was analysed before and tries nothing needs no store.
            assert connection.execute("SELECT email FROM customers WHERE id = 1").fetchall() == [(REDACTED,)]
            wait_until("readiness tells", lambda: gateway.ready()[0] == 503)
            server.start()
            wait_until("it is ready again", lambda: gateway.ready()[0] == 200, seconds=30)
            for number in (1, 2):
                assert connection.execute(f"{BY_EMAIL} 'nobody-{number}'").fetchall() == []
            assert refusal(connection, f"{BY_EMAIL} 'nobody-3'") == "53400", "what was counted before still counts"
        assert server.password not in gateway.log_text()
    finally:
        server.stop()


def test_a_store_whose_server_is_not_the_one_named_is_refused(made, server):
    good = server.create_database("checked_state")
    # The second address is not in the certificate; the second authority has not signed it.
    for store in (url(good).replace("@localhost:", "@127.0.0.2:"), url(good, sslrootcert="/dev/null")):
        gateway = made(store)
        with pytest.raises(HarnessError):
            gateway.start()
        said = gateway.log_text()
        assert "could not reach the state store" in said and good.password not in said, said
        gateway.process = None
    gateway = made(url(good)).start()
    assert gateway.ready()[0] == 200
