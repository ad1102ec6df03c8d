"""Who could have read a column: everybody on record and everybody the rules name, put to the policy of that day."""

import json
import re

import psycopg
import pytest

from lib import record
from lib.run import wait_until
from test_reading import exeat

COLUMN = "public.customers.ssn"
LABELS = 'labels: {shop: {ssn: ["public.customers.ssn"]}}\n'
# Agents see it masked, analysts as it is, temps not at all; orders are another matter.
OPEN = f"""version: 1
{LABELS}rules:
  - {{id: reads, target: shop, who: {{groups: [agents, analysts, temps]}}, allow: [read]}}
  - {{id: masks, target: shop, who: {{except: {{groups: [analysts]}}}}, mask: {{ssn: {{with: partial, last: 4}}}}}}
  - {{id: no-temps, target: shop, who: {{groups: [temps]}}, relations: [public.customers], deny: true, reason: "not for temps"}}
  - {{id: many, target: shop, relations: [public.customers], hold: {{rows: 100, approvers: {{groups: [owners]}}}}, unbounded: hold}}
  - {{id: paid, target: shop, who: {{claims: {{team: payments}}}}, allow: [read]}}
"""
# Nobody sees it as it is any more, and every statement of an agent about customers waits for a human.
CLOSED = f"""version: 1
{LABELS}rules:
  - {{id: reads, target: shop, who: {{groups: [agents, analysts, temps]}}, allow: [read]}}
  - {{id: masks, target: shop, mask: {{ssn: {{with: redact}}}}}}
  - {{id: ask, target: shop, who: {{groups: [agents]}}, relations: [public.customers], statements: [select], hold: {{approvers: {{groups: [owners]}}}}}}
"""
ASKED = f"""version: 1
{LABELS}rules:
  - {{id: reads, target: shop, who: {{groups: [agents, analysts]}}, allow: [read]}}
  - {{id: masks, target: shop, who: {{groups: [agents]}}, mask: {{ssn: {{with: redact, lookup: equality}}}}}}
"""
PEOPLE = {"agent-7": "agents", "ann": "analysts", "tim": "temps"}


class Answers:
    def __init__(self, gateway, before, then):
        self.gateway, self.before, self.then = gateway, before, then

    def ask(self, at, *more, column=COLUMN, config=True, status=0):
        where = ["--config", self.gateway.config_file] if config else ["--data", self.gateway.data_dir]
        return exeat("audit", "access", *where, "--column", column, "--at", at, *more, status=status)

    def could(self, at, *more, **options):
        return json.loads(self.ask(at, *more, "--json", **options).stdout)["could"]


def seen(could):
    return {told["principal"]["sub"]: told for told in could["on_record"]}


def named(could):
    return {told["who"]: told for told in could["by_rule"]}


@pytest.fixture(scope="module")
def answers(fresh_gateway, trust, tmp_path_factory):
    gateway = fresh_gateway("access", policy=OPEN).trust(trust.entry()).start()

    def accepted():
        return [one for one in record.events(gateway.data_dir, "policy.changed") if one["body"]["accepted"]]

    for name, group in PEOPLE.items():
        token = trust.token(name, [group])
        with psycopg.connect(gateway.dsn(token).text(), autocommit=True) as connection:
            connection.execute("SELECT id FROM orders WHERE id = 1")
    wait_until("three sessions have ended on record", lambda: len(record.events(gateway.data_dir, "session.end")) == 3)
    before = record.events(gateway.data_dir, "session.end")[-1]["time"]
    then = tmp_path_factory.mktemp("then")
    (then / "policy.yaml").write_text(OPEN)
    gateway.policy(CLOSED)
    wait_until("the second policy is on record", lambda: len(accepted()) == 2)
    token = trust.token("late", ["analysts"])
    with psycopg.connect(gateway.dsn(token).text(), autocommit=True) as connection:
        connection.execute("SELECT 1")
    wait_until("the fourth session has ended on record", lambda: len(record.events(gateway.data_dir, "session.end")) == 4)
    gateway.stop()
    return Answers(gateway, before, then)


def test_who_could_have_read_it_by_the_policy_of_that_day(answers):
    could = answers.could(answers.before, "--policy", answers.then)
    people = seen(could)
    assert set(people) == set(PEOPLE), "whoever came later is not asked about"
    agent, analyst, temp = people["agent-7"], people["ann"], people["tim"]
    assert (agent["read"], agent["mask"], agent["label"]) == ("masked", "partial", "ssn") and "masks" in agent["rules"]
    assert (analyst["read"], analyst["mask"], analyst["rules"]) == ("clear", None, ["reads"])
    assert (temp["read"], temp["mask"]) == ("denied", None) and temp["why"] == ["rule no-temps: not for temps"]
    assert agent["held_past"] == [{"amount": 100, "measure": "rows", "rule": "many"}] and agent["all_rows_at_once"] == "held by many"
    (there,) = agent["seen_there"]
    assert (there["database"], there["login"], there["sessions"]) == ("shop", "shop_reader", 1)
    assert any("claims" in note and "paid" in note for note in could["notes"])


def test_the_twin_after_the_policy_changed_the_answer_is_another(answers):
    people = seen(answers.could("0s"))
    assert set(people) == {*PEOPLE, "late"}
    assert {name: (told["read"], told["mask"]) for name, told in people.items()} == {
        "agent-7": ("held", "redact"), "ann": ("masked", "redact"), "late": ("masked", "redact"), "tim": ("masked", "redact"),
    }
    assert people["agent-7"]["why"] == ["ask"]


def test_whom_rules_name_is_asked_too_though_nobody_has_seen_them(answers):
    could = named(answers.could(answers.before, "--policy", answers.then / "policy.yaml"))
    assert {who: told["read"] for who, told in could.items()} == {
        "anybody of agents": "masked", "anybody of analysts": "clear", "anybody of temps": "denied",
        "anybody": "denied", 'anybody with team "payments"': "masked",
    }
    assert could["anybody"]["why"] == ["no rule allows it anything there"]
    assert could["anybody of analysts"]["named_by"] == ["masks", "reads"]


def test_a_policy_that_is_not_at_hand_is_named_and_no_other_is_asked(answers, tmp_path):
    told = answers.ask(answers.before)
    digest = re.search(r"version (\d+), sha256 ([0-9a-f]{64})", told.stdout)
    assert digest and "not answered here" in told.stdout and "--policy" in told.stdout and "another" in told.stdout
    shown = json.loads(answers.ask(answers.before, "--json").stdout)
    assert shown["could"] is None and shown["does_not_answer"] and shown["policy_in_force"]["sha256"] == digest[2]
    (tmp_path / "policy.yaml").write_text(OPEN + "# another\n")
    refused = answers.ask(answers.before, "--policy", tmp_path, status=1).stderr
    assert digest[2] in refused and "not the policy of that time" in refused
    # Before there was any.
    assert "no policy is on record" in answers.ask("2026-01-01").stdout
    assert "no policy is on record" in answers.ask("2026-01-01", "--policy", answers.then, status=1).stderr
    # Whose tokens count is in the configuration.
    assert "give --config" in answers.ask(answers.before, "--policy", answers.then, config=False).stdout


def test_for_people_it_says_the_same_in_words_and_for_one_column_only(answers):
    told = answers.ask(answers.before, "--policy", answers.then).stdout
    assert re.search(r"^  ann of analysts at shop: IN CLEAR; all rows at once held by many; past 100 rows held by many \(reads\)$", told, re.M), told
    assert re.search(r"^  agent-7 of agents at shop: masked by partial as ssn;.*\(masks, reads\)$", told, re.M), told
    assert re.search(r"^  tim of temps at shop: denied \(rule no-temps: not for temps\)$", told, re.M), told
    assert re.search(r"^  anybody of analysts at shop: IN CLEAR", told, re.M)
    assert "is not one column" in answers.ask("0s", column="public.customers.*").stdout
    assert "policy explain" in answers.ask("0s", column="pg_catalog.pg_stats.most_common_vals").stdout
    assert seen(answers.could("0s", column="public.orders.id"))["agent-7"]["read"] == "clear"
    assert answers.could("0s", "--target", "crm")["on_record"][0]["read"] == "denied", "rules of a target are its own"


def test_who_asks_about_what_is_open_to_them_has_read_it_and_who_looks_up_what_is_sealed_is_found(fresh_gateway, trust):
    """A condition on an open column says as much as its value; a lookup of a sealed one is counted, and no reading."""
    gateway = fresh_gateway("asked-about", policy=ASKED).trust(trust.entry()).start()
    for name, group in {"ann": "analysts", "agent-7": "agents"}.items():
        with psycopg.connect(gateway.dsn(trust.token(name, [group])).text(), autocommit=True) as connection:
            connection.execute("SELECT id FROM customers WHERE ssn = 'nobody'")
    wait_until("two sessions have ended on record", lambda: len(record.events(gateway.data_dir, "session.end")) == 2)
    gateway.stop()
    read = json.loads(exeat("audit", "access", "--config", gateway.config_file, "--column", COLUMN, "--at", "0s", "--json").stdout)["read"]
    assert [(one["principal"]["sub"], one["mask"]) for one in read] == [("ann", None)]
    found = json.loads(exeat("sessions", "list", "--config", gateway.config_file, "--column", COLUMN, "--json").stdout)["sessions"]
    assert [one["principal"]["sub"] for one in found] == ["agent-7", "ann"]
