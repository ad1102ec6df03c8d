"""From a statement that is held to the human who lets it through, by the command line, the API and messages, with the
tokens they come with; and who may not."""

import base64
import hashlib
import hmac
import http.server
import json
import ssl
import threading

import psycopg
import pytest

from lib.run import wait_until
from lib.yaml_text import dump
from streams import admin
from test_shared_store import url

SCHEMA = """
DROP SCHEMA IF EXISTS asked CASCADE;
CREATE SCHEMA asked;
CREATE TABLE asked.people (id integer PRIMARY KEY, name text NOT NULL, email text NOT NULL);
INSERT INTO asked.people SELECT i, 'name ' || i, 'mail' || i || '@example.com' FROM generate_series(1, 500) i;
CREATE TABLE asked.double AS SELECT * FROM asked.people;
GRANT USAGE ON SCHEMA asked TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA asked TO shop_reader, shop_dpo;
"""
HOLD = {"rows": 100, "approvers": {"groups": ["owners"]}, "wait": "60s",
        "break_glass": {"who": {"groups": ["chiefs"]}}}
POLICY = dump({
    "version": 1,
    "labels": {"shop": {"email": ["asked.*.email"]}},
    "rules": [
        {"id": "read", "who": {"groups": ["agents"], "actors": ["agent-7"]}, "target": "shop", "allow": ["read"]},
        {"id": "mask", "target": "shop", "mask": {"email": {"with": "redact"}}},
        {"id": "bulk", "target": "shop", "relations": ["asked.people"], "hold": HOLD},
        {"id": "two", "target": "shop", "relations": ["asked.double"], "hold": {**HOLD, "quorum": 2}},
    ],
})
EVERYBODY = "SELECT id, email FROM asked.people"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NUMBER = iter(range(1, 1_000_000))
HEARD_SECONDS_MAX = 20


class Receiver:
    """An HTTPS server that keeps what is posted to it."""

    def __init__(self, pair):
        self.posts = []
        posts = self.posts

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posts.append((self.path, dict(self.headers.items()), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"https://localhost:{self.server.server_port}{path}"

    def about(self, approval):
        return [json.loads(body) for path, _, body in self.posts if path == "/hook" and approval in body.decode()]


class Place:
    def __init__(self, gateway, trust):
        self.gateway, self.trust = gateway, trust
        self.bob, self.cleo = (trust.token(name, ["owners"]) for name in ("bob", "cleo"))

    def asker(self):
        """The subject, and the token, of a human for whom agent-7 acts and who has asked nothing yet."""
        subject = f"ann-{next(NUMBER)}"
        return subject, self.trust.token(subject, ["agents", "owners"], act="agent-7")

    def text(self, token, *arguments):
        return self.gateway.said(token, *arguments)

    def command(self, token, *arguments):
        return self.gateway.command(token, *arguments)

    def open_of(self, subject):
        """The ids of what a subject asks for and nobody has decided."""
        status, page, said = self.command(self.bob, "approvals", "list", "--principal", subject)
        assert status == 0, said
        return [line["id"] for line in page["approvals"]]

    def waits(self, subject):
        """The one request, once it is there."""
        wait_until("it is asked for", lambda: self.open_of(subject), seconds=HEARD_SECONDS_MAX)
        [id_] = self.open_of(subject)
        return id_


class Running:
    """A statement that runs in a thread of its own: its rows, or its error."""

    def __init__(self, dsn, sql, prepare=()):
        self.rows, self.error = None, None
        self.connection = psycopg.connect(dsn.text(), autocommit=True)
        for statement in prepare:
            self.connection.execute(statement)

        def work():
            try:
                self.rows = self.connection.execute(sql).fetchall()
            except psycopg.Error as error:
                self.error = error

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def ended(self):
        self.thread.join(timeout=HEARD_SECONDS_MAX)
        assert not self.thread.is_alive(), "it still waits"
        return self


@pytest.fixture(scope="module")
def receiver(authority):
    made = Receiver(authority.issue("receiver"))
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def place(fresh_gateway, run, shop, trust, provider, receiver, authority):
    admin(shop, SCHEMA)
    gateway = fresh_gateway("approvals", POLICY).trust(trust.entry()).trust(provider.entry())
    gateway.config["console"] = {"roles": {"admin": ["ops"], "auditor": ["audit"]}}
    secret = {"file": str(run.secret_file("approvals.secret", SECRET + "\n"))}
    addresses = {name: {"file": str(run.secret_file(f"approvals.{name}", receiver.url(f"/{name}")))} for name in ("hook", "chat")}
    gateway.config["notify"] = [
        {"webhook": {"url": addresses["hook"], "secret": secret, "ca": str(authority.cert)}},
        {"slack": {"url": addresses["chat"], "ca": str(authority.cert)}},
    ]
    gateway.start(level="debug")
    yield Place(gateway, trust)
    gateway.stop()
    admin(shop, "DROP SCHEMA asked CASCADE")


def test_a_human_lets_a_waiting_statement_through(place):
    subject, token = place.asker()
    running = Running(place.gateway.dsn(token), EVERYBODY)
    id_ = place.waits(subject)
    status, card, _ = place.text(place.bob, "approvals", "show", id_)
    assert status == 0 and "| SELECT id, email FROM asked.people" in card, card
    for said in (f"{subject} through agent agent-7", "held by     bulk:", "100 rows of asked.people", "You may: approve, deny",
                 "bulk: 0 of 1 humans from groups owners", "masked      asked.people.email"):
        assert said in card, (said, card)
    assert running.thread.is_alive() and running.rows is None
    status, printed, said = place.command(place.bob, "approvals", "approve", id_)
    assert (status, printed["granted"]["uses_left"]) == (0, 1), said
    assert len(running.ended().rows) == 500 and running.rows[0][1] == "[redacted by exeat]", running.error
    status, printed, _ = place.command(place.bob, "approvals", "show", id_)
    assert printed["state"] == "consumed"
    status, _, said = place.command(place.bob, "approvals", "approve", id_)
    assert status == 1 and "consumed" in said, said


def test_whoever_asks_does_not_decide_and_neither_does_a_machine(place, provider):
    subject, token = place.asker()
    running = Running(place.gateway.dsn(token), EVERYBODY)
    id_ = place.waits(subject)
    human = place.trust.token(subject, ["owners"])
    agent = place.trust.token("agent-7", ["owners"])
    acting = place.trust.token("bob", ["owners"], act="agent-8")
    workload = provider.token("dana")
    auditor = place.trust.token("olga", ["audit", "ops"])
    for who, asked, words in [
        ("the human", human, "does not decide"),
        ("the agent", agent, "does not decide"),
        ("an agent for an approver", acting, "only a human"),
        ("a workload of another issuer", workload, "only a human"),
        ("an auditor and administrator", auditor, "names you among its approvers"),
        ("a stranger", place.trust.token("mallory", ["agents"]), "there is no approval"),
    ]:
        for act in (["approve"], ["deny", "--reason", "x"]):
            status, _, said = place.command(asked, "approvals", act[0], id_, *act[1:])
            assert status == (1 if who == "a stranger" else 3) and words in said, (who, act, status, said)
    assert place.command("nonsense", "approvals", "show", id_)[0] == 5
    assert running.thread.is_alive(), "nobody has decided"
    status, _, said = place.command(place.bob, "approvals", "deny", id_, "--reason", "not for agents")
    assert status == 0, said
    error = running.ended().error
    assert error.sqlstate == "42501" and "approval_denied" in error.diag.message_detail, error
    assert len(running.connection.execute("SELECT id FROM asked.people WHERE id <= 9").fetchall()) == 9


def test_two_humans_are_two_and_the_narrower_counts(place):
    subject, token = place.asker()
    running = Running(place.gateway.dsn(token), "SELECT id FROM asked.double")
    id_ = place.waits(subject)
    status, printed, said = place.command(place.bob, "approvals", "approve", id_, "--rows", "400")
    assert (status, printed["state"]) == (4, "pending") and "another human" in said, said
    status, _, said = place.command(place.bob, "approvals", "approve", id_)
    assert status == 1 and "already" in said, said
    assert running.thread.is_alive()
    status, printed, said = place.command(place.cleo, "approvals", "approve", id_, "--rows", "200", "--expires", "90s")
    assert (status, printed["granted"]["rows"]) == (0, 200), said
    assert running.ended().error.sqlstate == "53400", (running.rows and len(running.rows), running.error)


def test_the_glass_is_broken_and_looked_at(place, receiver):
    subject, token = place.asker()
    running = Running(place.gateway.dsn(token), EVERYBODY)
    id_ = place.waits(subject)
    chief = place.trust.token("zoe", ["chiefs"])
    status, _, said = place.command(place.bob, "approvals", "break-glass", id_, "--reason", "x")
    assert status == 3, said
    status, printed, said = place.command(chief, "approvals", "break-glass", id_, "--reason", "the shop burns")
    assert (status, printed["review"]["state"]) == (0, "due"), said
    assert len(running.ended().rows) == 500
    wait_until("it alerts", lambda: "approval.glass_broken" in [post["type"] for post in receiver.about(id_)])
    due = place.command(place.bob, "approvals", "list", "--state", "review")[1]["approvals"]
    assert id_ in [line["id"] for line in due]
    assert place.command(chief, "approvals", "review", id_, "justified", "--remark", "x")[0] == 3
    status, printed, _ = place.command(place.bob, "approvals", "review", id_, "justified", "--remark", "it did burn")
    assert (status, printed["review"]["finding"]) == (0, "justified")


def test_what_hides_in_a_statement_is_seen(place, receiver):
    subject, token = place.asker()
    hostile = "SELECT id /* \x1b[2J \u202e\n  who         boss\n<!channel> @everyone ``` */ FROM asked.people"
    running = Running(place.gateway.dsn(token), hostile, ["SET exeat.purpose = 'audit \u202e'"])
    id_ = place.waits(subject)
    _, card, _ = place.text(place.bob, "approvals", "show", id_)
    assert "\x1b" not in card and "\u202e" not in card and "\\u{1b}[2J \\u{202e}" in card, card
    assert [line for line in card.splitlines() if line.startswith("  who ")] == [card.splitlines()[2]], card
    assert "|   who         boss" in card
    chats = lambda: [body.decode() for path, _, body in receiver.posts if path == "/chat" and id_ in body.decode()]  # noqa: E731
    wait_until("the chat is told", chats)
    for text in chats():
        assert "&lt;!channel&gt;" in text and not set("<@\u202e") & set(json.loads(json.dumps(text))), text
        assert json.loads(text)["unfurl_links"] is False
    status, _, said = place.command(place.trust.token("olga", ["ops"]), "approvals", "withdraw", "--principal", subject)
    assert status == 0, said
    assert running.ended().error is not None and place.open_of(subject) == []


def test_messages_are_signed_and_checked_by_code_that_is_not_ours(place, receiver):
    subject, token = place.asker()
    running = Running(place.gateway.dsn(token), "SELECT id FROM asked.people WHERE name <> 'hunter2'")
    id_ = place.waits(subject)
    wait_until("the webhook is told", lambda: receiver.about(id_))
    place.command(place.bob, "approvals", "deny", id_, "--reason", "no")
    running.ended()
    wait_until("and of the decision", lambda: "approval.closed" in [post["type"] for post in receiver.about(id_)])
    asked = receiver.about(id_)[0]
    assert asked["type"] == "approval.requested" and asked["data"]["approval"]["target"] == "shop"
    assert asked["data"]["card"]["sql"].startswith("SELECT id") and asked["data"]["card"]["sample"] is None
    ids = set()
    for path, headers, body in receiver.posts:
        if path != "/hook":
            continue
        headers = {name.lower(): value for name, value in headers.items()}
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert hmac.compare_digest(headers["webhook-signature"], f"v1,{expected}")
        ids.add(headers["webhook-id"])
    assert len(ids) == len([1 for path, _, _ in receiver.posts if path == "/hook"]), "each arrives once"
    for secret in (SECRET, token):
        assert secret not in place.gateway.log_text()


def test_a_freeze_ends_what_waits(place):
    subject, token = place.asker()
    running = Running(place.gateway.dsn(token), EVERYBODY)
    place.waits(subject)
    boss = place.trust.token("boss", ["ops"])
    assert place.command(boss, "freeze", subject, "--reason", "incident 42")[0] == 0
    error = running.ended().error
    assert error is not None and (error.sqlstate == "57P01" or "frozen" in str(error)), error
    wait_until("nobody is asked any more", lambda: place.open_of(subject) == [])
    assert place.command(boss, "thaw", subject)[0] == 0


def test_what_was_shown_is_counted_and_set_back(place):
    subject, token = place.asker()
    boss = place.trust.token("boss", ["ops"])
    with psycopg.connect(place.gateway.dsn(token).text(), autocommit=True) as connection:
        for first in (1, 41):
            few = f"SELECT id FROM asked.people WHERE id BETWEEN {first} AND {first + 39}"
            assert len(connection.execute(few).fetchall()) == 40
        status, shown, said = place.command(boss, "limits", "show", "--principal", subject)
        assert status == 0, said
        used = {limit["kind"]: limit["used"] for limit in shown["limits"] if limit["relation"] == "asked.people"}
        assert used["unapproved_rows"] == 80, shown
        status, printed, _ = place.command(boss, "limits", "reset", "--principal", subject)
        assert status == 0 and printed["reset"] >= 1
        assert place.command(boss, "limits", "show", "--principal", subject)[1]["limits"] == []
        assert len(connection.execute("SELECT id FROM asked.people WHERE id BETWEEN 1 AND 90").fetchall()) == 90


def test_what_one_gateway_holds_is_decided_at_another_of_its_store(fresh_gateway, run, server, shop, trust, place):
    del place  # It makes the tables.
    store = url(server.create_database("approvals_state"))
    gateways = []
    for number in range(2):
        gateway = fresh_gateway(f"approvals-{number}", POLICY).trust(trust.entry())
        gateway.config["store"] = {"file": str(run.secret_file(f"approvals-{number}.store", store + "\n"))}
        if gateways:
            gateway.config["keys"] = str(gateways[0].folder / "keys")
        gateways.append(gateway.start(level="debug"))
    one, other = (Place(gateway, trust) for gateway in gateways)
    subject, token = one.asker()
    running = Running(one.gateway.dsn(token), EVERYBODY)
    id_ = other.waits(subject)
    card = other.command(other.bob, "approvals", "show", id_)[1]["card"]
    assert card["sql"] == EVERYBODY, "cards are read under the key that the gateways share"
    assert other.command(other.bob, "approvals", "approve", id_, "--uses", "2")[0] == 0
    assert len(running.ended().rows) == 500
    # The second run of the same, at the other gateway, collects; what is taken back collects no more.
    assert len(Running(other.gateway.dsn(token), EVERYBODY).ended().rows) == 500
    wait_until("it is used up", lambda: one.command(one.bob, "approvals", "show", id_)[1]["state"] == "consumed")

    subject, token = one.asker()
    running = Running(one.gateway.dsn(token), EVERYBODY)
    id_ = other.waits(subject)
    assert other.command(other.bob, "approvals", "approve", id_, "--uses", "5")[0] == 0
    assert len(running.ended().rows) == 500
    assert other.command(other.cleo, "approvals", "revoke", id_, "--reason", "changed my mind")[0] == 0
    error = Running(one.gateway.dsn(token), EVERYBODY).ended().error
    assert error is not None and error.sqlstate == "42501", error
    for gateway in gateways:
        gateway.stop()
