"""Who gets in: tokens of a real provider, its rotations and outages, and everything that is not such a token."""

import base64
import hashlib
import hmac
import json
import time

import psycopg
import pytest

from lib import tokens, wire
from lib.run import wait_until


def login_error(dsn):
    """The fields of the FATAL answer to a login that must fail."""
    with wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert) as connection, pytest.raises(wire.LoginRefused) as caught:
        connection.login(dsn)
    return caught.value.fields


def assert_not_authenticated(dsn, *words):
    fields = login_error(dsn)
    assert fields["S"] == "FATAL" and fields["C"] == "28000", fields
    text = " ".join(fields.get(name, "") for name in "MDH")
    for word in words:
        assert word in text, text
    assert dsn.password == "" or dsn.password not in text


def accepted(dsn):
    with psycopg.connect(dsn.text()) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def segment(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_token_of_the_provider_is_enough(agent):
    assert accepted(agent)


def test_the_user_field_means_nothing(agent):
    assert accepted(agent.with_(user="postgres"))


@pytest.mark.parametrize(
    "password", ["", "secret", "eyJ", "eyJhbGciOiJub25lIn0.e30.", "a.b.c", "eyJ" + "A" * 20000], ids=lambda text: text[:12] or "empty",
)
def test_what_is_no_token_is_refused(agent, password):
    fields = login_error(agent.with_(password=password))
    # As a server says it: 28P01 is a wrong password, 28000 a token that is not accepted.
    expected = "28000" if password.count(".") == 2 or len(password) > 16384 else "28P01"
    assert fields["S"] == "FATAL" and fields["C"] == expected, fields


def test_a_changed_signature_is_refused(agent):
    head, body, signature = agent.password.split(".")
    flipped = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
    assert_not_authenticated(agent.with_(password=f"{head}.{body}.{flipped}"))


def test_an_expired_token_is_refused_with_the_next_step(plain, trust):
    assert_not_authenticated(plain.dsn(trust.token("agent-7", ["agents"], ttl="-1h")), "expired")


def wrong_claims(now):
    return {
        "another audience": {"aud": "somebody-else"},
        "another issuer": {"iss": "https://evil.test"},
        "not yet": {"nbf": now + 3600},
        "lives too long": {"exp": now + 10 * 86400},
        "no subject": {"sub": None},
        "groups that are no strings": {"groups": [1, 2]},
        "too many groups": {"groups": [f"g{number}" for number in range(501)]},
    }


@pytest.mark.parametrize("name", wrong_claims(0))
def test_claims_are_checked(plain, trust, name):
    claims = wrong_claims(int(time.time()))[name]
    assert_not_authenticated(plain.dsn(trust.token("agent-7", ["agents"], claims=claims)))


def test_the_same_claims_in_order_are_accepted(plain, trust):
    """The permitted twin of the tests above: only the named claim made the difference."""
    assert accepted(plain.dsn(trust.token("agent-7", ["agents"], claims={"nbf": int(time.time()) - 10})))


def test_an_unsigned_token_is_refused(plain, trust):
    _, body, _ = trust.token("agent-7", ["agents"]).split(".")
    for algorithm in ("none", "None", "NONE"):
        assert_not_authenticated(plain.dsn(f"{segment({'alg': algorithm, 'typ': 'JWT'})}.{body}."))


def test_the_public_key_is_no_shared_secret(plain, trust):
    """HS256 signed with the published key: the classic confusion."""
    jwk = tokens.public_jwk(trust.key)
    _, body, _ = trust.token("agent-7", ["agents"]).split(".")
    signed = f"{segment({'alg': 'HS256', 'typ': 'JWT', 'kid': jwk['kid']})}.{body}"
    for secret in (json.dumps(jwk), jwk["x"], trust.jwks.read_text()):
        mac = base64.urlsafe_b64encode(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)).rstrip(b"=")
        assert_not_authenticated(plain.dsn(f"{signed}.{mac.decode()}"))


def test_another_key_with_the_same_name_is_refused(plain, trust, tmp_path):
    impostor = tokens.new_key(tmp_path / "impostor.key")
    claims = json.loads(base64.urlsafe_b64decode(trust.token("agent-7", ["agents"]).split(".")[1] + "=="))
    forged = tokens.sign(impostor, claims, {"kid": tokens.public_jwk(trust.key)["kid"]})
    assert_not_authenticated(plain.dsn(forged))


def test_no_password_is_asked_for_before_tls(gateway, agent):
    """A client that skips TLS is sent away before it can send its token in clear."""
    with wire.Connection("127.0.0.1", gateway.port) as connection:
        connection.startup(user="agent", database="shop")
        tag, body = connection.receive()
        fields = wire.error_fields(body)
        assert tag == "E" and fields["S"] == "FATAL" and fields["C"] == "28000"
        assert "sslmode" in fields.get("H", "")


def test_a_rotated_key_is_picked_up_and_the_old_one_kept_while_published(fresh_gateway, authority, provider):
    gateway = fresh_gateway("rotation").listen_tls(authority).trust(provider.entry()).start()
    old = provider.token("agent-7")
    assert accepted(gateway.dsn(old))
    provider.rotate(keep=True)
    assert accepted(gateway.dsn(provider.token("agent-7")))
    assert accepted(gateway.dsn(old))
    # A flood of tokens with unknown keys does not become a flood of requests to the provider.
    before = provider.fetches()
    head = segment({"alg": "ES256", "typ": "at+jwt", "kid": "unheard-of"})
    for _ in range(20):
        assert_not_authenticated(gateway.dsn(f"{head}.{old.split('.')[1]}.{old.split('.')[2]}"))
    assert provider.fetches() - before <= 1
    gateway.stop()


def test_an_outage_of_the_provider_does_not_end_the_service_at_once(fresh_gateway, authority, provider):
    gateway = fresh_gateway("outage").listen_tls(authority).trust(provider.entry()).start()
    token = provider.token("agent-7")
    assert accepted(gateway.dsn(token))
    provider.outage(True)
    try:
        assert accepted(gateway.dsn(token))
    finally:
        provider.outage(False)
    gateway.stop()


def test_a_key_removed_from_the_file_ends_trust_in_it(fresh_gateway, run):
    from lib.gateway import Trust

    trust = Trust(run, "withdrawn")
    gateway = fresh_gateway("withdrawal").trust(trust.entry()).start()
    dsn = gateway.dsn(trust.token("agent-7", ["agents"]))
    assert accepted(dsn)
    replacement = tokens.new_key(run.path("replacement.key"))
    tokens.write_jwks(trust.jwks, replacement)
    wait_until("the old key is refused", lambda: not quietly_accepted(dsn))
    assert accepted(gateway.dsn(tokens.mint(replacement, "agent-7", ["agents"])))
    gateway.stop()


def quietly_accepted(dsn):
    try:
        return accepted(dsn)
    except psycopg.OperationalError:
        return False


def logs_in(dsn):
    with wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert) as connection:
        try:
            connection.login(dsn)
        except wire.LoginRefused:
            return False
        return True


def test_a_session_ends_when_its_token_does(plain, trust):
    """The token is within the minute of clock skew at login and past it soon after."""
    with psycopg.connect(plain.dsn(trust.token("agent-7", ["agents"], ttl="-53s")).text(), autocommit=True) as connection:
        # What stands right behind the answer to a statement comes as a notice, what comes later as an error.
        said = []

        def hear(words):
            said.append((words.sqlstate, words.message_primary))  # read here: libpq frees a notice behind its handler

        def ended():
            try:
                connection.execute("SELECT 1")
            except psycopg.Error as error:
                hear(error.diag)
            return connection.broken

        connection.add_notice_handler(hear)
        wait_until("the session ends with its token", ended, seconds=40)
        assert ("28000", "identity expired, reconnect") in said


def test_a_transaction_under_way_may_finish_past_the_expiry(plain, trust):
    dsn = plain.dsn(trust.token("agent-7", ["agents"], ttl="-53s"))
    with psycopg.connect(dsn.text(), autocommit=True) as connection:
        connection.execute("BEGIN")
        wait_until("the token has expired for new sessions", lambda: not quietly_accepted(dsn), seconds=40)
        connection.execute("SELECT 1")
        connection.execute("COMMIT")


@pytest.fixture(scope="module")
def brief_token(provider):
    """Lives one second; got when this file starts so that it has ripened when the last test asks."""
    return provider.token("brief"), time.time()


def test_a_short_lived_token_of_the_provider_works_while_it_lives(gateway, brief_token):
    token, minted = brief_token
    assert time.time() - minted > 50 or accepted(gateway.dsn(token))


@pytest.mark.late
def test_a_short_lived_token_of_the_provider_expires(gateway, brief_token):
    dsn = gateway.dsn(brief_token[0])
    wait_until("the provider's short-lived token is refused", lambda: not logs_in(dsn), seconds=90)
    assert_not_authenticated(dsn, "expired")
