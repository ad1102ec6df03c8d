"""`exeat policy explain` and `policy test`, against a real catalog: what they say is what a session then gets."""

import json
import subprocess

import psycopg
import pytest

from lib.yaml_text import dump
from spine import AGENT_MASKS, LABELS, policy


@pytest.fixture(scope="module")
def asked(plain, program):
    """What the program says of a statement: exit code, text, JSON."""

    def explain(sql, who="sub=agent-7,groups=agents"):
        said = [program, "policy", "explain", "--config", str(plain.config_file), "--as", who, "--target", "shop", sql]
        text, data = (
            subprocess.run([*said, *more], capture_output=True, text=True, check=False, timeout=60)
            for more in ([], ["--json"])
        )
        assert text.returncode == data.returncode, (text.stderr, data.stderr)
        return text.returncode, text.stdout, json.loads(data.stdout) if data.stdout else text.stderr

    return explain


def test_a_permitted_statement_shows_every_source_and_mask(asked, connect, plain, trust):
    sql = "SELECT id, ssn AS x, upper(city) FROM customers WHERE id = 1"
    code, text, data = asked(sql)
    assert code == 0 and data["decision"] == "permit"
    lines = text.splitlines()
    under = lines.index(f"  {sql}")
    assert lines[under + 2] == "             ^^^ x: public.customers.ssn; masked by rule mask-agents: partial as ssn"
    (x,) = [output for output in data["outputs"] if output["name"] == "x"]
    assert x["from"] == [{"column": "public.customers.ssn", "how": "bare", "behind": []}]
    # The session says the same, member by member, and the text is the same text.
    connection = connect(plain.dsn(trust.token("agent-7", ["agents"])))
    connection.execute("SET exeat.explain = on")
    ((told,),) = connection.execute(sql).fetchall()
    told = json.loads(told)
    assert told["text"] == text and told["outputs"] == data["outputs"]


def test_a_refused_statement_shows_where_and_what_instead(asked, connect, plain, trust):
    sql = "SELECT id FROM customers\nWHERE ssn = '1'"
    code, text, data = asked(sql)
    assert code == 3 and data["decision"] == "refuse"
    lines = text.splitlines()
    assert lines[lines.index("  WHERE ssn = '1'") + 1].startswith("        ^^^ ")
    assert any("city" in instead and "ssn" not in instead.split(":")[1] for instead in data["instead"] if ":" in instead)
    with pytest.raises(psycopg.Error) as refused:
        connect(plain.dsn(trust.token("agent-7", ["agents"]))).execute(sql)
    detail = json.loads(refused.value.diag.message_detail)
    del detail["request_id"]
    assert data["refusal"] == detail


def test_a_session_is_not_told_the_columns_of_what_it_may_not_read(asked, connect, plain, trust):
    sql = "SELECT * FROM hr.salaries"
    code, text, _ = asked(sql)
    assert code == 3 and "hr.salaries." in text
    connection = connect(plain.dsn(trust.token("agent-7", ["agents"])))
    connection.execute("SET exeat.explain = on")
    ((told,),) = connection.execute(sql).fetchall()
    assert "hr.salaries." not in told and json.loads(told)["refusal"]["code"] == "denied"


def test_what_cannot_be_asked_ends_with_1_and_says_why(asked):
    code, text, error = asked("SELEC 1")
    assert (code, text) == (1, "") and "does not parse" in error
    assert asked("SELECT 1", "groups=agents")[0] == 2


@pytest.mark.parametrize(
    ("expect", "code"),
    [
        ({"decision": "allow", "masked": {"x": "ssn"}, "lineage": {"x": ["public.customers.ssn"], "n": []}}, 0),
        ({"decision": "allow", "lineage": {"x": ["public.customers.email"]}}, 3),
        ({"decision": "allow", "lineage": {"y": []}}, 3),
        ({"refused": "masked_column_in_predicate"}, 3),
    ],
)
def test_policy_tests_hold_lineage_and_refusals(fresh_gateway, trust, program, expect, code):
    text = policy(AGENT_MASKS) + dump({"tests": [{
        "as": {"sub": "agent-7", "groups": ["agents"]}, "target": "shop",
        "statement": "SELECT ssn AS x, 1 AS n FROM customers", "expect": expect,
    }]})
    assert "ssn" in LABELS
    gateway = fresh_gateway(f"expects-{code}-{len(str(expect))}", policy=text).trust(trust.entry())
    gateway.write_config()
    arguments = [program, "policy", "test", "--config", str(gateway.config_file)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, (done.stdout, done.stderr)
