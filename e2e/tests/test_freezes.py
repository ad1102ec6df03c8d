"""Whoever and whatever is frozen stands still within a second, on both roads and at every gateway of a store, until
somebody lifts it."""

import time

import psycopg
import pytest

from lib import record
from lib import wire
from lib.gateway import PASS_THROUGH, Gateway
from lib.postgres import SUPERUSER
from lib.run import wait_until
from spine import policy
from streams import admin, session
from test_session_ends import last_words
from test_shared_store import url

# A session looks once a second; the rest is for a busy machine.
FROZEN_SECONDS_MAX = 10
ROLES = {"roles": {"admin": ["ops"], "viewer": ["eyes"]}}
POLICY = policy(more=[{"id": "acting", "who": {"groups": ["agents"], "actors": ["*"]}, "target": "shop", "allow": ["read"]}])


class Place:
    def __init__(self, gateway, trust):
        self.gateway, self.trust = gateway, trust
        self.boss = trust.token("boss", ["ops"])

    def token(self, subject, **options):
        return self.trust.token(subject, ["agents"], **options)

    def done(self, *arguments):
        status, printed, said = self.gateway.command(self.boss, *arguments)
        assert status == 0, (arguments, said)
        return printed

    def refused(self, token):
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(self.gateway.dsn(token).text())
        return str(caught.value)

    def lets_in(self, token):
        try:
            psycopg.connect(self.gateway.dsn(token).text()).close()
        except psycopg.OperationalError:
            return False
        return True

    def let_in(self, token):
        with psycopg.connect(self.gateway.dsn(token).text(), autocommit=True) as connection:
            assert connection.execute("SELECT 1").fetchall() == [(1,)]

    def recorded(self, kind):
        return record.events(self.gateway.data_dir, kind)


@pytest.fixture(scope="module", params=["sealed", "pass-through"])
def place(request, run, program, server, shop, trust, fresh_gateway):
    name = f"freezes-{request.param}"
    if request.param == "sealed":
        gateway = fresh_gateway(name, POLICY)
    else:
        gateway = Gateway(run, name).policy(PASS_THROUGH)
        gateway.target(server, "shop", [{"user": SUPERUSER, "password": server.password}], allow_privileged_login=True)
    gateway.config["console"] = ROLES
    gateway.trust(trust.entry()).start(level="debug")
    yield Place(gateway, trust)
    gateway.stop()


@pytest.mark.parametrize("doing", ["nothing", "a transaction", "a statement"])
@pytest.mark.parametrize("what", ["subject", "agent", "target"])
def test_a_freeze_ends_sessions_at_once_and_keeps_logins_out(place, shop, doing, what):
    token = place.token("ann", act="agent-9") if what == "agent" else place.token("ann")
    bystander = place.token("bystander")
    name = {"subject": "ann", "agent": "agent-9", "target": "shop"}[what]
    with session(place.gateway.dsn(token)) as client:
        pid = client.backend[0]
        if doing != "nothing":
            client.cycle(wire.query("BEGIN"))
        if doing == "a statement":
            client.send(wire.query("SELECT pg_sleep(600)"))
        since = time.monotonic()
        frozen = place.done("freeze", name, "--reason", "incident 42")
        assert frozen["kind"] == ("target" if what == "target" else "subject")
        fields = last_words(client)
        took = time.monotonic() - since
        assert fields["C"] == "57P01" and "frozen" in fields["M"], fields
        assert "incident" not in str(fields), "why is between those who run it"
        assert took < FROZEN_SECONDS_MAX, took
    alive = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
    wait_until("the server's session is over, too", lambda: admin(shop, alive) == [(0,)])
    assert "frozen" in place.refused(token)
    if what == "target":
        assert "frozen" in place.refused(bystander)
    else:
        place.let_in(bystander)
    assert place.recorded("auth.fail")[-1]["body"]["reason"].startswith("frozen_")
    place.done("thaw", name)
    place.let_in(token)


def test_only_an_administrator_freezes_and_it_is_on_record(place):
    eye, agent = place.trust.token("eye", ["eyes"]), place.token("agent-7")
    acting = place.trust.token("boss", ["ops"], act="agent-7")
    for token in (eye, agent, acting):
        status, _, said = place.gateway.command(token, "freeze", "ann", "--reason", "x")
        assert status == 3 and "role admin" in said, said
    assert place.gateway.command("nothing", "freezes")[0] == 5
    before = len(place.recorded("freeze.set"))
    for wrong, words in [
        (("freeze", "boss", "--reason", "x"), "yourself"),
        (("freeze", "shpo", "--target", "--reason", "x"), "does not exist"),
        (("freeze", "ann", "--issuer", "https://other", "--reason", "x"), "not configured"),
        (("freeze", "ann", "--reason", "a\nb"), "control character"),
        (("thaw", "ann"), "not frozen"),
    ]:
        status, _, said = place.gateway.command(place.boss, *wrong)
        assert status == 1 and words in said, (wrong, said)
    assert place.gateway.command(place.boss, "freeze", "ann")[0] == 2, "a freeze has a reason"
    assert len(place.recorded("freeze.set")) == before, "what is refused is not on record as done"

    place.done("freeze", "agent-7", "--reason", "incident 42")
    status, _, said = place.gateway.command(place.boss, "freeze", "agent-7", "--reason", "again")
    assert status == 1 and "frozen already, by boss: incident 42" in said, said
    [listed] = place.gateway.command(eye, "freezes")[1]["freezes"]
    assert (listed["kind"], listed["name"], listed["by"]["subject"]) == ("subject", "agent-7", "boss")
    # What is frozen has no business at the console either, were it an administrator's.
    status, _, said = place.gateway.command(place.trust.token("agent-7", ["ops"]), "thaw", "agent-7")
    assert status == 3 and "frozen" in said, said
    assert place.gateway.ask("POST", "/v1/handles", {}, agent)[0] == 403
    place.done("thaw", "agent-7")
    assert place.gateway.ask("POST", "/v1/handles", {}, agent)[0] == 201
    set_, lifted = place.recorded("freeze.set")[-1], place.recorded("freeze.lifted")[-1]
    assert (set_["body"]["of"], set_["body"]["reason"], set_["principal"]["sub"]) == ("agent-7", "incident 42", "boss")
    assert (lifted["body"]["of"], lifted["principal"]["sub"]) == ("agent-7", "boss")


def test_a_freeze_survives_a_restart_and_holds_at_the_other_gateway_of_the_store(
    fresh_gateway, run, server, shop, trust
):
    store = url(server.create_database("frozen_state"))
    gateways = []
    for number in range(2):
        gateway = fresh_gateway(f"frozen-{number}", POLICY).trust(trust.entry())
        gateway.config["console"] = ROLES
        gateway.config["store"] = {"file": str(run.secret_file(f"frozen-{number}.store", store + "\n"))}
        if gateways:
            gateway.config["keys"] = str(gateways[0].folder / "keys")
        gateways.append(gateway.start(level="debug"))
    one, other = (Place(gateway, trust) for gateway in gateways)
    token = other.token("ann")
    with session(other.gateway.dsn(token)) as client:
        since = time.monotonic()
        one.done("freeze", "ann", "--reason", "incident 42")
        assert last_words(client)["C"] == "57P01"
        assert time.monotonic() - since < FROZEN_SECONDS_MAX
    assert "frozen" in other.refused(token)
    other.gateway.stop()
    other.gateway.start(level="debug")
    assert "frozen" in other.refused(token)
    other.done("thaw", "ann")
    other.let_in(token)
    wait_until("the other gateway has heard", lambda: one.lets_in(token))
    for gateway in gateways:
        gateway.stop()
