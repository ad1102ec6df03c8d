"""How clients prove themselves: direct TLS, protocol 3.2, handles by SCRAM and in clear, OAUTHBEARER, certificates.

The libpq of psycopg's wheel is version 18; it has no OAuth flow of its own, so OAUTHBEARER is spoken by the raw client.
"""

import asyncio
import base64
import calendar
import hashlib
import json
import socket
import ssl
import struct
import time

import asyncpg
import psycopg
import pytest

from lib import wire
from lib.dsn import psql
from lib.run import wait_until
from test_record import lines, of_type
from test_sessions import runs_and_is_cancelled

PLUS = "p=tls-server-end-point,,"
PROTOCOL_3_2 = (3 << 16) | 2
BOUND = ("-d", "channel_binding=require")


def refused(dsn, **options):
    """The fields of the FATAL answer to a login that must fail."""
    with wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert, **options) as connection, pytest.raises(wire.LoginRefused) as caught:
        connection.login(dsn)
    return caught.value.fields


def works(dsn, **options):
    with psycopg.connect(dsn.text(), **options) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def open_to_sasl(dsn, user=None, **parameters):
    """A connection at the point where the server names its SASL mechanisms, and these."""
    connection = wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert)
    connection.startup(user=user or dsn.user, database=dsn.dbname, **parameters)
    tag, body = connection.receive()
    assert (tag, body[:4]) == ("R", struct.pack("!i", 10)), (tag, body)
    return connection, [name.decode() for name in body[4:].split(b"\0") if name]


def expect(connection, kind):
    tag, body = connection.receive()
    assert tag == "R" and struct.unpack("!i", body[:4])[0] == kind, (tag, body)
    return body[4:]


def fatal(connection, code="28000"):
    tag, body = connection.receive()
    fields = wire.error_fields(body)
    assert tag == "E" and (fields["S"], fields["C"]) == ("FATAL", code), (tag, body)
    return fields


@pytest.fixture
def handle(gateway, provider):
    """A fresh handle of the agent on the TLS gateway: (DSN with the handle's name as the user, the handle)."""
    token = provider.token("agent-7")
    made = gateway.handle(token)
    yield gateway.dsn(made["password"], user=made["handle"]), made
    gateway.ask("DELETE", f"/v1/handles/{made['handle']}", token=token)


# Direct TLS


def test_libpq_18_opens_with_tls_directly(agent):
    assert works(agent, sslnegotiation="direct")


@pytest.mark.parametrize("alpn", [["postgresql"], ["http/1.1", "postgresql"]])
def test_direct_tls_with_the_right_name_is_served(agent, alpn):
    with wire.Connection(agent.host, agent.port, ca=agent.sslrootcert, direct=True, alpn=alpn) as connection:
        assert connection.socket.selected_alpn_protocol() == "postgresql"
        connection.login(agent)


def test_direct_tls_without_a_name_is_closed_without_a_word(agent):
    with wire.Connection(agent.host, agent.port, ca=agent.sslrootcert, direct=True) as connection:
        with pytest.raises((wire.Closed, ConnectionError, ssl.SSLError)):
            connection.startup(user="agent", database="shop")
            connection.receive()


@pytest.mark.parametrize("direct", [True, False])
def test_tls_for_another_protocol_is_refused_in_the_handshake(agent, direct):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        wire.Connection(agent.host, agent.port, ca=agent.sslrootcert, direct=direct, alpn=["http/1.1"])


def test_direct_tls_to_a_listener_without_tls_is_closed(plain, authority):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        wire.Connection("127.0.0.1", plain.port, ca=authority.cert, direct=True, alpn=["postgresql"])


def test_tls_hidden_behind_another_request_is_no_direct_tls(gateway):
    """After GSSENCRequest the connection goes on in clear: a handshake there is not a startup packet."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        raw.sendall(struct.pack("!ii", 8, 80877104))
        assert raw.recv(1) == b"N"
        raw.sendall(b"\x16\x03\x01\x02\x00")
        assert raw.recv(1) == b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_are_spoken(agent, version):
    context = ssl.create_default_context(cafile=agent.sslrootcert)
    context.minimum_version = context.maximum_version = version
    with wire.Connection(agent.host, agent.port, ca=agent.sslrootcert, context=context) as connection:
        assert connection.socket.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        connection.login(agent)


def test_an_older_tls_is_refused(agent):
    context = ssl.create_default_context(cafile=agent.sslrootcert)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        wire.Connection(agent.host, agent.port, ca=agent.sslrootcert, context=context)


# Protocol 3.2


def test_libpq_18_speaks_protocol_3_2(agent):
    with psycopg.connect(agent.text(), min_protocol_version="3.2", max_protocol_version="3.2") as connection:
        assert connection.pgconn.full_protocol_version == 30002
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_cancel_with_a_long_key_reaches_its_statement(agent, shop):
    with psycopg.connect(agent.text(), min_protocol_version="3.2", autocommit=True) as connection:
        runs_and_is_cancelled(connection, shop)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def startup_with(dsn, protocol, **parameters):
    connection = wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert)
    connection.startup(protocol=protocol, user=dsn.user, database=dsn.dbname, **parameters)
    return connection


@pytest.mark.parametrize("protocol, key_bytes", [(wire.PROTOCOL_3_0, 4), (PROTOCOL_3_2, 32)])
def test_the_cancel_key_is_as_long_as_the_protocol_lets_it(agent, protocol, key_bytes):
    with startup_with(agent, protocol) as connection:
        expect(connection, 3)
        connection.send(wire.message("p", wire.cstring(agent.password)))
        (key,) = [body for tag, body in connection.receive_until("Z") if tag == "K"]
        assert len(key) - 4 == key_bytes


@pytest.mark.parametrize(
    "protocol, options, answer",
    [
        ((3 << 16) | 9999, {}, (2, [])),
        ((3 << 16) | 9999, {"_pq_.grease": "1"}, (2, ["_pq_.grease"])),
        (wire.PROTOCOL_3_0, {"_pq_.first": "1", "_pq_.second": "on"}, (0, ["_pq_.first", "_pq_.second"])),
    ],
)
def test_what_is_not_known_of_the_protocol_is_negotiated_away(agent, protocol, options, answer):
    with startup_with(agent, protocol, **options) as connection:
        tag, body = connection.receive()
        major, minor, count = struct.unpack("!hhi", body[:8])
        names = [name.decode() for name in body[8:].split(b"\0") if name]
        assert (tag, major, minor, count, names) == ("v", 3, answer[0], len(answer[1]), answer[1])
        expect(connection, 3)


def test_another_major_version_is_refused(agent):
    for protocol in (2 << 16, 4 << 16):
        with startup_with(agent, protocol) as connection:
            fatal(connection, "08P01")


# Handles


def test_psql_15_demands_channel_binding_of_a_handle_and_gets_it(handle):
    dsn, _ = handle
    done = psql(dsn, "SELECT 1", options=BOUND)
    assert done.stdout.strip() == "1"


def test_psql_that_demands_channel_binding_never_sends_a_token(agent):
    """The refusing twin: a password in clear has no binding, and libpq says so itself."""
    done = psql(agent, "SELECT 1", options=BOUND, check=False)
    assert done.returncode != 0 and "channel binding" in done.stderr


def test_libpq_18_and_asyncpg_log_in_by_scram(handle):
    dsn, _ = handle
    assert works(dsn, require_auth="scram-sha-256", channel_binding="require")

    async def ask():
        context = ssl.create_default_context(cafile=dsn.sslrootcert)
        connection = await asyncpg.connect(
            host=dsn.host, port=dsn.port, user=dsn.user, password=dsn.password, database=dsn.dbname, ssl=context,
        )
        try:
            return await connection.fetchval("SELECT 1")
        finally:
            await connection.close()

    assert asyncio.run(ask()) == 1


def test_a_handle_is_a_password_too(handle):
    dsn, _ = handle
    assert works(dsn.with_(user="anybody"), require_auth="password")


def test_a_handle_lends_what_its_token_proves(handle, gateway, provider, connect):
    dsn, _ = handle
    masked = "SELECT email FROM customers WHERE id = 1"
    assert connect(dsn).execute(masked).fetchone() == connect(gateway.dsn(provider.token("agent-7"))).execute(masked).fetchone()
    made = gateway.handle(provider.token("dana"))
    assert connect(gateway.dsn(made["password"], user=made["handle"])).execute(masked).fetchone() != connect(dsn).execute(masked).fetchone()


def test_a_wrong_password_an_unknown_handle_and_a_revoked_one_are_told_the_same(handle, gateway, provider):
    dsn, made = handle
    gone = gateway.handle(provider.token("agent-7"))
    status, _ = gateway.ask("DELETE", f"/v1/handles/{gone['handle']}", token=provider.token("agent-7"))
    assert status == 204
    answers = [
        refused(attempt)
        for user in (None, "anybody")
        for attempt in (
            dsn.with_(password=dsn.password[:-1], user=user or dsn.user),
            dsn.with_(user=user or "exh_00000000000000000000", password="exh_00000000000000000000_" + "A" * 43),
            gateway.dsn(gone["password"], user=user or gone["handle"]),
        )
    ]
    assert {json.dumps(fields, sort_keys=True) for fields in answers} == {json.dumps(answers[0], sort_keys=True)}
    assert answers[0]["C"] == "28P01" and "handle" in answers[0]["M"] and answers[0]["H"]
    assert works(dsn)


def test_a_name_nobody_has_is_answered_like_any_other(handle, gateway):
    """The salt of a name stays the same, whether anybody has it or not."""
    dsn, made = handle

    def challenge(name):
        connection, mechanisms = open_to_sasl(dsn, user=name)
        with connection:
            connection.send(wire.sasl_initial(mechanisms[1], wire.Scram("x").first()))
            parts = dict(part.split("=", 1) for part in expect(connection, 11).decode().split(","))
            return mechanisms, parts["s"], parts["i"]

    for name in (made["handle"], "exh_00000000000000000000", "exh_", "exh_?"):
        assert challenge(name) == challenge(name)
        assert [challenge(name)[index] for index in (0, 2)] == [["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], "4096"]
        assert len(base64.b64decode(challenge(name)[1])) == 16


def test_a_handle_is_for_its_target_and_its_source(gateway, provider):
    token = provider.token("agent-7")
    status, answer = gateway.ask("POST", "/v1/handles", {"target": "elsewhere"}, token)
    assert status == 400 and "elsewhere" in answer["error"]
    here = gateway.handle(token, target="shop", source="127.0.0.0/8")
    assert works(gateway.dsn(here["password"], user=here["handle"]))
    away = gateway.handle(token, source="192.0.2.0/24")
    for user in (away["handle"], "anybody"):
        fields = refused(gateway.dsn(away["password"], user=user))
        assert fields["C"] == "28000" and "address" in fields["M"], fields


def session(dsn):
    """A raw session: it hears what the gateway says to an idle client."""
    return wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert).login(dsn)


def test_a_revoked_handle_ends_its_sessions(handle, gateway, provider, connect):
    dsn, made = handle
    token, path = provider.token("agent-7"), f"/v1/handles/{made['handle']}"
    other = gateway.handle(token)
    kept = connect(gateway.dsn(other["password"], user=other["handle"]))
    with session(dsn) as ending:
        assert gateway.ask("DELETE", path, token=provider.token("dana"))[0] == 404
        ending.cycle(wire.query("SELECT 1"))
        assert gateway.ask("DELETE", path, token=token)[0] == 204
        assert "reconnect" in fatal(ending)["M"]
    assert kept.execute("SELECT 1").fetchone() == (1,)
    assert gateway.ask("DELETE", path, token=token)[0] == 404
    assert gateway.ask("DELETE", f"/v1/handles/{other['handle']}", token=token)[0] == 204


def test_a_handle_never_outlives_its_token(plain, trust):
    """The token is within the minute of clock skew: its handle ends with it, long before its own ten minutes."""
    made = plain.handle(trust.token("agent-7", ["agents"], ttl="-50s"))
    dsn = plain.dsn(made["password"], user=made["handle"])
    with session(dsn) as ending:
        ending.cycle(wire.query("SELECT 1"))
        fatal(ending)
    assert refused(dsn)["C"] == "28P01"


def test_requests_for_handles_are_checked(gateway, provider):
    token = provider.token("agent-7")
    for body, word in [
        (b"{", "JSON"), (b"[]", "JSON"), ({"sources": "10.0.0.0/8"}, "sources"), ({"source": "everywhere"}, "source"),
        ({"lifetime_seconds": 299}, "lifetime"), ({"lifetime_seconds": 901}, "lifetime"), ({"lifetime_seconds": "1"}, "lifetime"),
    ]:
        status, answer = gateway.ask("POST", "/v1/handles", body, token)
        assert status == 400 and word in answer["error"], (body, answer)
    assert gateway.ask("POST", "/v1/handles", b" " * 5000, token)[0] == 413
    for bad in (None, "", "nonsense", provider.token("agent-7")[:-2] + "AA"):
        status, answer = gateway.ask("POST", "/v1/handles", {}, bad)
        assert status == 401 and "hint" in answer, (bad, answer)
    status, _ = gateway.ask("POST", "/v1/handles", {}, headers={"Authorization": f"Basic {token}"})
    assert status == 401
    made = gateway.handle(token, lifetime_seconds=300)
    left = calendar.timegm(time.strptime(made["expires"], "%Y-%m-%dT%H:%M:%SZ")) - time.time()
    assert 290 <= left <= 300 and made["target"] == "shop"
    assert gateway.ask("DELETE", f"/v1/handles/{made['handle']}")[0] == 401
    assert gateway.ask("DELETE", f"/v1/handles/{made['handle']}", token=token)[0] == 204


def test_one_principal_has_a_bounded_number_of_handles(gateway, provider):
    token = provider.token("seat-0")
    made = [gateway.handle(token)["handle"] for _ in range(20)]
    status, answer = gateway.ask("POST", "/v1/handles", {}, token)
    assert status == 429 and "20" in answer["error"]
    assert gateway.ask("DELETE", f"/v1/handles/{made[0]}", token=token)[0] == 204
    gateway.handle(token)


def test_handles_are_on_record_without_their_passwords(fresh_gateway, trust):
    gateway = fresh_gateway("handles").trust(trust.entry()).start()
    token = trust.token("agent-7", ["agents"])
    made = gateway.handle(token, source="127.0.0.1")
    dsn = gateway.dsn(made["password"], user=made["handle"])
    assert works(dsn)
    refused(dsn.with_(password="wrong"))
    assert gateway.ask("POST", "/v1/handles", {}, "nonsense")[0] == 401
    assert gateway.ask("DELETE", f"/v1/handles/{made['handle']}", token=token)[0] == 204
    gateway.stop()
    entries = lines(gateway)
    (issued,) = of_type(entries, "handle.issued")
    assert issued["body"]["handle"] == made["handle"] and issued["body"]["expires"] == made["expires"]
    assert issued["body"]["bound_to"] == "127.0.0.1" and issued["principal"]["sub"] == "agent-7"
    assert issued["target"] == "shop" and issued["source"].startswith("127.0.0.1:")
    (start,) = of_type(entries, "session.start")
    assert start["body"]["handle"] == made["handle"] and start["body"]["token"] == issued["body"]["token"]
    (revoked,) = of_type(entries, "handle.revoked")
    assert revoked["body"]["handle"] == made["handle"] and revoked["principal"]["sub"] == "agent-7"
    scram, console = of_type(entries, "auth.fail")
    assert (scram["body"]["reason"], scram["body"]["handle"]) == ("handle_refused", made["handle"])
    assert console["body"]["reason"] == "not_a_token" and "target" not in console
    secret = made["password"].removeprefix(made["handle"])
    assert secret not in gateway.log_text() + json.dumps(entries)
    # A restart takes all of them back.
    fresh = gateway.start()
    assert refused(dsn)["C"] == "28P01"
    fresh.stop()


def test_a_console_that_others_can_reach_gives_no_handles(fresh_gateway, trust):
    gateway = fresh_gateway("open-console").trust(trust.entry())
    gateway.config["listen"]["console"]["address"] = f"0.0.0.0:{gateway.console_port}"
    gateway.start()
    status, answer = gateway.ask("POST", "/v1/handles", {}, trust.token("agent-7", ["agents"]))
    assert status == 403 and "loopback" in answer["error"]
    gateway.stop()


# SCRAM under attack


def end_point(dsn):
    """The channel binding of the certificate the listener shows."""
    with wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert) as connection:
        return hashlib.sha256(connection.socket.getpeercert(binary_form=True)).digest()


def exchange(dsn, mechanism, header, bound=b""):
    """Plays a whole exchange; what the server says at its end."""
    connection, _ = open_to_sasl(dsn)
    with connection:
        scram = wire.Scram(dsn.password, header, bound)
        connection.send(wire.sasl_initial(mechanism, scram.first()))
        tag, body = connection.receive()
        if tag == "R":
            connection.send(wire.message("p", scram.final(body[4:])))
            tag, body = connection.receive()
        return ("ok", None) if tag == "R" else (tag, wire.error_fields(body))


def test_a_bound_exchange_passes_with_the_shown_certificate_only(handle):
    dsn, _ = handle
    assert exchange(dsn, "SCRAM-SHA-256-PLUS", PLUS, end_point(dsn)) == ("ok", None)
    for bound in (hashlib.sha256(b"another certificate").digest(), b"", end_point(dsn)[:-1]):
        tag, fields = exchange(dsn, "SCRAM-SHA-256-PLUS", PLUS, bound)
        assert tag == "E" and fields["C"] == "28000" and "channel binding" in fields["M"], fields


@pytest.mark.parametrize(
    "mechanism, header",
    [
        ("SCRAM-SHA-256", "y,,"),
        ("SCRAM-SHA-256", PLUS),
        ("SCRAM-SHA-256-PLUS", "n,,"),
        ("SCRAM-SHA-256-PLUS", "y,,"),
        ("SCRAM-SHA-256-PLUS", "p=tls-unique,,"),
        ("SCRAM-SHA-256", "n,a=dana,"),
        ("SCRAM-SHA-1", "n,,"),
        ("OAUTHBEARER", "n,,"),
    ],
)
def test_an_exchange_that_hides_a_downgrade_is_refused(handle, mechanism, header):
    dsn, _ = handle
    tag, fields = exchange(dsn, mechanism, header, end_point(dsn) if header == PLUS else b"")
    assert tag == "E" and (fields["S"], fields["C"]) == ("FATAL", "28000"), fields


def test_an_unbound_exchange_is_fine_where_the_client_knows_no_better(handle):
    dsn, _ = handle
    assert exchange(dsn, "SCRAM-SHA-256", "n,,") == ("ok", None)


def test_without_tls_there_is_no_binding_to_offer(plain, trust):
    made = plain.handle(trust.token("agent-7", ["agents"]))
    dsn = plain.dsn(made["password"], user=made["handle"])
    connection, mechanisms = open_to_sasl(dsn)
    connection.socket.close()
    assert mechanisms == ["SCRAM-SHA-256"]
    assert exchange(dsn, "SCRAM-SHA-256", "y,,") == ("ok", None)
    assert exchange(dsn, "SCRAM-SHA-256-PLUS", PLUS, b"x")[0] == "E"


def test_a_proof_heard_once_is_worth_nothing(handle):
    dsn, _ = handle
    connection, _ = open_to_sasl(dsn)
    with connection:
        scram = wire.Scram(dsn.password)
        first = wire.sasl_initial("SCRAM-SHA-256", scram.first())
        connection.send(first)
        last = wire.message("p", scram.final(expect(connection, 11)))
        connection.send(last)
        expect(connection, 12)
    connection, _ = open_to_sasl(dsn)
    with connection:
        connection.send(first)
        expect(connection, 11)
        connection.send(last)
        assert "nonce" in fatal(connection)["M"]


def test_a_query_in_place_of_a_proof_is_refused(handle):
    dsn, _ = handle
    connection, _ = open_to_sasl(dsn)
    with connection:
        connection.send(wire.query("SELECT 1"))
        fatal(connection, "08P01")


# OAUTHBEARER


def bearer(token, header="n,,"):
    return f"{header}\x01auth={'Bearer ' + token if token else ''}\x01\x01".encode()


def oauth(dsn, data, mechanism="OAUTHBEARER", user="oauth"):
    """The connection after the client's first message."""
    connection, mechanisms = open_to_sasl(dsn, user=user)
    assert mechanisms == ["OAUTHBEARER"]
    connection.send(wire.sasl_initial(mechanism, data))
    return connection


def test_a_token_by_oauthbearer_is_as_good_as_one_in_the_password(agent):
    with oauth(agent, bearer(agent.password)) as connection:
        assert expect(connection, 0) == b""
        connection.receive_until("Z")
        rows = connection.cycle(wire.query("SELECT email FROM customers WHERE id = 1"))
        assert ("D") in [tag for tag, _ in rows]


@pytest.mark.parametrize("token", ["", "nonsense", "eyJhbGciOiJub25lIn0.e30."])
def test_without_a_good_token_the_client_hears_where_to_get_one(agent, provider, token):
    with oauth(agent, bearer(token)) as connection:
        answer = json.loads(expect(connection, 11))
        assert answer["status"] == "invalid_token" and answer["scope"] == "openid"
        assert answer["openid-configuration"] == f"{provider.issuer}/.well-known/openid-configuration"
        connection.send(wire.message("p", b"\x01"))
        fields = fatal(connection, "28P01" if token == "nonsense" else "28000")
        assert not token or token not in json.dumps(fields)


def test_libpq_18_understands_where_to_get_a_token(agent, provider):
    """It has no flow to get one with here, and says so only after it has understood and agreed with our answer."""
    options = {"oauth_issuer": provider.issuer, "oauth_client_id": "psql", "require_auth": "oauth", "user": "oauth"}
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(agent.text(), **options)
    assert "flow" in str(caught.value).lower(), caught.value
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(agent.text(), **{**options, "oauth_issuer": "https://other.example.com"})
    assert "issuer" in str(caught.value).lower() or "flow" in str(caught.value).lower(), caught.value


@pytest.mark.parametrize(
    "data",
    [
        b"", b"n,,", b"n,,\x01auth=Bearer x", b"n,a=dana,\x01auth=Bearer x\x01\x01", b"\xff\x01\x01",
        b"p=tls-server-end-point,,\x01auth=Bearer x\x01\x01", b"n,,\x01auth=Basic eDp4\x01\x01",
        b"n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01",
    ],
)
def test_oauthbearer_out_of_shape_is_refused(agent, data):
    with oauth(agent, data) as connection:
        fatal(connection)


def test_another_mechanism_than_the_offered_one_is_refused(agent):
    with oauth(agent, bearer(agent.password), mechanism="SCRAM-SHA-256") as connection:
        fatal(connection)


@pytest.fixture(scope="module")
def oauth_only(fresh_gateway, authority, provider):
    gateway = fresh_gateway("oauth-only").listen_tls(authority).trust(provider.entry(scope="exeat.connect"))
    gateway.config["listen"]["postgres"]["auth"] = "oauthbearer"
    yield gateway.start()
    gateway.stop()


def test_a_listener_may_speak_oauthbearer_to_everybody(oauth_only, provider):
    dsn = oauth_only.dsn(provider.token("agent-7"))
    with oauth(dsn, bearer(dsn.password), user="anybody") as connection:
        expect(connection, 0)
    with oauth(dsn, bearer(""), user="anybody") as connection:
        assert json.loads(expect(connection, 11))["scope"] == "exeat.connect"
    # Handles keep their own method.
    made = oauth_only.handle(provider.token("agent-7"))
    assert works(oauth_only.dsn(made["password"], user=made["handle"]))


def test_such_a_listener_takes_no_password(oauth_only, provider):
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(oauth_only.dsn(provider.token("agent-7")).text())


def test_a_token_refused_by_oauthbearer_counts_as_a_failed_login(fresh_gateway, trust):
    gateway = fresh_gateway("oauth-guesses").trust(trust.entry())
    gateway.config["listen"]["postgres"]["limits"] = {"failed_logins": "3/min"}
    gateway.start()
    dsn = gateway.dsn(trust.token("agent-7", ["agents"]))
    # Asking where to get a token is no guess...
    for _ in range(5):
        with oauth(dsn, bearer("")) as connection:
            expect(connection, 11)
            connection.send(wire.message("p", b"\x01"))
            fatal(connection)
    with oauth(dsn, bearer(dsn.password)) as connection:
        expect(connection, 0)
    # ...a wrong one is, whether its sender waits for the answer or not.
    for _ in range(3):
        with oauth(dsn, bearer("guess")) as connection:
            expect(connection, 11)

    def locked_out():
        with wire.Connection(dsn.host, dsn.port) as connection:
            connection.startup(user="oauth", database="shop")
            return connection.receive()[0] == "E"

    wait_until("further guesses are refused unheard", locked_out, seconds=10)
    gateway.stop()


# Certificates of clients


def bound(pair, kind="x5t#S256"):
    der = ssl.PEM_cert_to_DER_cert(pair.cert.read_text())
    return {"cnf": {kind: base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()}}


@pytest.fixture(scope="module")
def certified(fresh_gateway, authority, trust):
    gateway = fresh_gateway("certified").listen_tls(authority).trust(trust.entry())
    gateway.config["listen"]["postgres"]["tls"]["client_ca"] = str(authority.cert)
    yield gateway.start()
    gateway.stop()


@pytest.fixture(scope="module")
def pairs(authority):
    return [authority.issue(name, usage="clientAuth") for name in ("client-one", "client-two")]


def with_certificate(pair):
    return {"sslcert": str(pair.cert), "sslkey": str(pair.key)}


def test_a_bound_token_is_taken_with_its_certificate_only(certified, trust, pairs):
    mine, other = pairs
    dsn = certified.dsn(trust.token("agent-7", ["agents"], claims=bound(mine)))
    for negotiation in ("postgres", "direct"):
        assert works(dsn, sslnegotiation=negotiation, **with_certificate(mine))
    for options in ({}, with_certificate(other)):
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(dsn.text(), **options)
        assert "certificate" in str(caught.value)


@pytest.mark.parametrize("claims", [{"cnf": {"jkt": "abc"}}, {"cnf": {"x5t#S256": "abc"}}, {"cnf": {}}, {"cnf": "abc"}])
def test_other_bindings_are_refused_whatever_is_shown(certified, trust, pairs, claims):
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(certified.dsn(trust.token("agent-7", ["agents"], claims=claims)).text(), **with_certificate(pairs[0]))


def test_a_certificate_is_nobody_by_itself(certified, trust, pairs):
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(certified.dsn("no token").text(), **with_certificate(pairs[0]))
    dsn = certified.dsn(trust.token("agent-7", ["agents"]))
    assert works(dsn) and works(dsn, **with_certificate(pairs[0]))


def test_a_certificate_of_another_authority_fails_the_handshake(certified, trust, run):
    from lib.certificates import Authority

    stranger = Authority(run.path("stranger-ca")).issue("client-one", usage="clientAuth")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(certified.dsn(trust.token("agent-7", ["agents"])).text(), **with_certificate(stranger))


def test_a_bound_token_makes_no_handle(certified, trust, pairs):
    """It would be good without the certificate from then on."""
    status, answer = certified.ask("POST", "/v1/handles", {}, trust.token("agent-7", ["agents"], claims=bound(pairs[0])))
    assert status == 401 and "certificate" in answer["error"]


def test_a_listener_that_asks_for_no_certificate_takes_no_bound_token(gateway, plain, trust, pairs):
    dsn = plain.dsn(trust.token("agent-7", ["agents"], claims=bound(pairs[0])))
    assert "certificate" in refused(dsn)["M"]
