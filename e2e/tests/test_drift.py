"""A database that changes under its policy: a rename keeps its label, and what nobody has accepted is sealed."""


import psycopg
import pytest

from lib import record
from lib.gateway import SHOP_SQL
from lib.postgres import psql
from lib.run import wait_until
from spine import REDACTED


@pytest.fixture
def place(fresh_gateway, server, trust, request):
    """A gateway over a shop of its own, which it knows already."""
    name = request.node.name[:50]
    admin = server.create_database(name)
    psql(admin, file=SHOP_SQL)
    gateway = fresh_gateway(name, database=name).trust(trust.entry())
    del gateway.config["targets"]["shop"]["postgres"]["unclassified"]
    gateway.config["console"] = {"roles": {"admin": ["dpo"], "viewer": ["seats"]}}
    gateway.start()
    yield Place(gateway, admin, trust)
    gateway.stop()


class Place:
    def __init__(self, gateway, admin, trust):
        self.gateway, self.admin = gateway, admin
        self.tokens = {group: trust.token("someone", [group]) for group in ("agents", "dpo", "seats")}
        self.agent = gateway.dsn(self.tokens["agents"])
        self.officer = gateway.dsn(self.tokens["dpo"])
        # The first session there.
        assert self.read("SELECT email FROM customers WHERE id = 1") == [(REDACTED,)]

    def change(self, sql):
        psql(self.admin, sql)

    def read(self, sql, dsn=None):
        with psycopg.connect((dsn or self.agent).text()) as connection:
            return connection.execute(sql).fetchall()

    def reads(self, sql, rows):
        """Whether it does yet: while the gateway looks at what has changed, it may refuse."""
        try:
            return self.read(sql) == rows
        except psycopg.Error:
            return False

    def command(self, group, *arguments):
        """(exit status, what was printed as JSON, what was said beside it)"""
        return self.gateway.command(self.tokens.get(group, group), *arguments)

    def recorded(self, kind):
        return record.events(self.gateway.data_dir, kind)


def test_a_renamed_column_keeps_its_label(place):
    place.change("ALTER TABLE customers RENAME email TO contact")
    assert place.read("SELECT contact FROM customers WHERE id = 1") == [(REDACTED,)]
    [(seen,)] = place.read("SELECT contact FROM customers WHERE id = 1", place.officer)
    assert seen != REDACTED


def test_a_renamed_relation_keeps_its_labels(place):
    place.change("ALTER TABLE customers RENAME TO people")
    assert place.read("SELECT email FROM people WHERE id = 1") == [(REDACTED,)]


def test_the_label_survives_a_restart(place):
    place.change("ALTER TABLE customers RENAME email TO contact")
    place.gateway.stop()
    place.gateway.start()
    assert place.read("SELECT contact FROM customers WHERE id = 1") == [(REDACTED,)]


def test_a_new_column_is_sealed_on_a_labelled_relation_only(place):
    place.change("ALTER TABLE customers ADD nickname text DEFAULT 'secret'")
    place.change("ALTER TABLE orders ADD remark text DEFAULT 'plain'")
    assert place.read("SELECT nickname FROM customers WHERE id = 1") == [(REDACTED,)]
    assert place.read("SELECT remark FROM orders LIMIT 1") == [("plain",)]
    assert place.read("SELECT nickname FROM customers WHERE id = 1", place.officer) == [("secret",)]


def test_a_relation_outside_the_baseline_is_sealed(place):
    place.change("CREATE TABLE copied AS SELECT email AS a, id FROM customers")
    place.change("GRANT SELECT ON copied TO PUBLIC")
    assert place.read("SELECT a, id FROM copied LIMIT 1") == [(REDACTED, None)]
    [(address, _)] = place.read("SELECT a, id FROM copied LIMIT 1", place.officer)
    assert "@" in address
    wait_until("readiness tells", lambda: "public.copied" in str(place.gateway.readiness()))


def test_accepting_opens_what_was_new_and_nothing_that_has_a_label(place):
    place.change("CREATE TABLE made AS SELECT 'plain' AS a; GRANT SELECT ON made TO PUBLIC")
    place.change("ALTER TABLE customers ADD nickname text DEFAULT 'Bo'; ALTER TABLE customers RENAME email TO contact")
    reads = ["SELECT a FROM made", "SELECT nickname, contact FROM customers WHERE id = 1"]
    with psycopg.connect(place.agent.text(), autocommit=True) as open_session:

        def seen():
            return [open_session.execute(sql).fetchall() for sql in reads]

        assert seen() == [[(REDACTED,)], [(REDACTED, REDACTED)]]
        status, shown, _ = place.command("seats", "discover")
        assert status == 0 and not shown["accepted"]
        for finding in ("public.made", "public.customers.nickname", "public.customers.contact and keeps label email"):
            assert any(finding in text for text in shown["findings"]), shown
        assert seen() == [[(REDACTED,)], [(REDACTED, REDACTED)]], "looking changes nothing"
        status, shown, _ = place.command("dpo", "discover", "--accept")
        assert status == 0 and shown["accepted"]
        assert seen() == [[("plain",)], [("Bo", REDACTED)]], "an open session knows at once"
    [event] = place.recorded("baseline.accepted")
    assert event["principal"]["sub"] == "someone" and event["target"] == "shop"
    assert len(place.recorded("baseline.taken")) == 1


def test_who_has_no_role_accepts_and_resets_nothing(place):
    place.change("CREATE TABLE made AS SELECT 'plain' AS a; GRANT SELECT ON made TO PUBLIC")
    for group, arguments in [
        ("agents", ["discover"]),
        ("agents", ["discover", "--accept"]),
        ("seats", ["discover", "--accept"]),
        ("agents", ["limits", "show"]),
        ("seats", ["limits", "reset"]),
    ]:
        status, shown, said = place.command(group, *arguments)
        assert (status, shown) == (3, None) and "console.roles" in said, (group, arguments, said)
    assert place.command("no token at all", "discover", "--accept")[0] == 5
    assert place.read("SELECT a FROM made") == [(REDACTED,)]
    assert place.recorded("baseline.accepted") == place.recorded("limit.reset") == []


def test_limits_are_shown_and_reset_on_record(place):
    assert place.command("seats", "limits", "show")[:2] == (0, {"limits": []})
    assert place.command("dpo", "limits", "reset", "--principal", "agent-7")[:2] == (0, {"reset": 0})
    [event] = place.recorded("limit.reset")
    assert event["body"]["of"] == "agent-7" and event["principal"]["groups"] == ["dpo"]


def test_an_empty_database_is_never_a_baseline(place):
    place.change("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")
    status, _, said = place.command("dpo", "discover", "--accept")
    assert status == 1 and "nothing to accept" in said
    place.change("CREATE TABLE customers (id int, email text, more text); GRANT SELECT ON customers TO PUBLIC")
    place.change("INSERT INTO customers VALUES (1, 'a@b.c', 'm')")
    assert place.read("SELECT email, more FROM customers") == [(REDACTED, REDACTED)]
    assert place.command("dpo", "discover", "--accept")[0] == 0
    assert place.read("SELECT email, more FROM customers") == [(REDACTED, "m")]


def test_a_gateway_whose_store_is_broken_does_not_start(fresh_gateway, trust):
    gateway = fresh_gateway("brokenstore").trust(trust.entry()).start()
    gateway.stop()
    store = gateway.data_dir / "state" / "exeat.db"
    for companion in store.parent.glob("exeat.db-*"):
        companion.unlink()
    store.write_bytes(b"no database" * 100)
    gateway.launch()
    wait_until("it says why", lambda: "state store" in gateway.log_text() and gateway.process.poll() is not None)


def test_a_new_partition_is_what_its_parent_is_and_takes_nothing_from_anybody(place):
    place.change(
        """CREATE TABLE visits (id int, email text, city text) PARTITION BY LIST (id);
        CREATE TABLE visits_one PARTITION OF visits FOR VALUES IN (1);
        INSERT INTO visits VALUES (1, 'a@example.com', 'Ulm'); GRANT SELECT ON visits, visits_one TO PUBLIC"""
    )
    wait_until("the new table is noticed", lambda: place.reads("SELECT city FROM visits", [(REDACTED,)]))
    status, _, said = place.command("dpo", "discover", "--accept")
    assert status == 0, said
    wait_until("it is accepted", lambda: place.reads("SELECT city FROM visits", [("Ulm",)]))
    place.change(
        """CREATE TABLE visits_two (id int, email text, city text, own text);
        ALTER TABLE visits_two DROP COLUMN own; ALTER TABLE visits ATTACH PARTITION visits_two FOR VALUES IN (2);
        INSERT INTO visits VALUES (2, 'b@example.com', 'Bonn'); GRANT SELECT ON visits_two TO PUBLIC"""
    )
    for _ in range(3):
        assert place.read("SELECT city FROM visits WHERE id = 1") == [("Ulm",)]
    wait_until("the partition is noticed", lambda: place.reads("SELECT city FROM visits_two", [("Bonn",)]))
    assert place.read("SELECT city FROM visits ORDER BY id") == [("Ulm",), ("Bonn",)]
    place.change("ALTER TABLE visits DETACH PARTITION visits_two")
    wait_until("it stands alone", lambda: place.reads("SELECT city FROM visits_two", [(REDACTED,)]))


def test_detect_looks_at_what_nobody_has_accepted_and_at_nothing_else(fresh_gateway, server, trust):
    admin = server.create_database("detecting")
    psql(admin, file=SHOP_SQL)
    psql(admin, "UPDATE orders SET item = 'for a.person@example.com' WHERE id = 1")
    gateway = fresh_gateway("detecting", database="detecting").trust(trust.entry())
    gateway.config["targets"]["shop"]["postgres"]["unclassified"] = "detect"
    gateway.start()
    place = Place(gateway, admin, trust)
    try:
        place.change(
            """CREATE TABLE fresh (id int, note text); GRANT SELECT ON fresh TO PUBLIC;
            INSERT INTO fresh VALUES (1, 'write to a.person@example.com'), (2, 'plain')"""
        )
        for sql in ("SELECT note FROM fresh ORDER BY id", "SELECT lower(note) FROM fresh ORDER BY id"):
            assert place.read(sql) == [(REDACTED,), ("plain",)]
        assert place.read("SELECT item FROM orders WHERE id = 1") == [("for a.person@example.com",)]
        # What a label seals is sealed as ever.
        assert place.read("SELECT email FROM customers WHERE id = 1") == [(REDACTED,)]
    finally:
        gateway.stop()
