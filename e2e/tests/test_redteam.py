"""The red-team runner: what it reads from a corpus, what it calls clean, and one small corpus from start to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.gateway import binary
from lib.run import HarnessError
from redteam_support import policy
from redteam_support.corpus import Corpus, quoted
from redteam_support.suites import choice, clean

E2E = Path(__file__).resolve().parent.parent
COLUMNS = [
    {"schema": "public", "table": "person", "column": "ssn", "class": "us ssn"},
    {"schema": "public", "table": "person", "column": "Home Address", "class": "address"},
    {"schema": "public", "table": "person_view", "column": "ssn", "class": "us ssn", "derived_from": ["public.person.ssn"]},
]
SENSITIVE = {
    "columns": COLUMNS,
    "bulk_protected": [{"schema": "public", "table": "person", "ref_column": "ref", "ref_prefix": "P-", "max_rows": 7}],
    "trusted": {"description": "what the operator vouches for", "triggers": ["public.person.keep"], "views": []},
}
# A runner as far as its interface goes: makes the database, asks the gateway for the column, reports what it got.
RUNNER = """
import argparse, json, psycopg
parser = argparse.ArgumentParser()
for name in ("dsn", "admin-dsn", "direct-dsn", "suite", "json", "split", "server-tmp", "before-case", "bulk-limit", "only"):
    parser.add_argument("--" + name)
parser.add_argument("--no-load", action="store_true")
given = parser.parse_args()
if not given.no_load:
    with psycopg.connect(given.admin_dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute("CREATE DATABASE " + psycopg.conninfo.conninfo_to_dict(given.dsn)["dbname"])
    with psycopg.connect(given.admin_dsn, autocommit=True) as admin:
        admin.execute('CREATE TABLE person (id int, ssn text, "Home Address" text)')
        admin.execute("INSERT INTO person VALUES (1, 'secret', 'secret')")
with psycopg.connect(given.dsn) as through:
    row = through.execute('SELECT id, ssn, "Home Address" FROM person').fetchone()
status = "leaked" if "secret" in row else "masked" if given.suite == "attacks" else "masked-as-expected"
report = {"totals": {status: 1}, "cases": [{"id": "one", "row": row, "only": given.only}], "skipped": [["two", "needs a newer server"]]}
json.dump(report, open(given.json, "w"))
print(f"{given.suite}: {status}")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run.py").write_text(RUNNER)
    (tmp_path / "sensitive.json").write_text(json.dumps(SENSITIVE))
    for suite, categories in (("attacks", ["rows", "bulk"]), ("benign", ["read"])):
        (tmp_path / suite).mkdir()
        (tmp_path / suite / "cases.json").write_text(json.dumps([{"id": name, "category": name} for name in categories]))
    return tmp_path


def test_labels_leave_out_what_lineage_must_find(folder):
    assert Corpus(folder).labels() == {"us_ssn": ["public.person.ssn"], "address": ['public.person."Home Address"']}


def test_names_are_quoted_where_a_policy_needs_it():
    assert [quoted(name) for name in ("ssn", "SSN", "a b", 'a"b', "1a")] == ["ssn", '"SSN"', '"a b"', '"a""b"', '"1a"']


def test_every_label_is_redacted_and_protected_tables_are_held(folder):
    corpus = Corpus(folder)
    masks = policy.rules(corpus, holds=False)[-1]["mask"]
    assert masks == {"us_ssn": {"with": "redact"}, "address": {"with": "redact"}}
    held = policy.rules(corpus, holds=True)[-1]
    assert (held["relations"], held["hold"]["rows"], held["hold"]["wait"]) == (["public.person"], 7, "1s")


def test_what_is_trusted_keeps_its_kinds_only(folder):
    assert Corpus(folder).trusted() == {"triggers": ["public.person.keep"]}


def test_bulk_cases_wait_for_holds_and_are_run_with_them(folder):
    corpus = Corpus(folder)
    assert choice(corpus, "attacks", None, holds=False) == "rows"
    assert choice(corpus, "benign", None, holds=False) is None
    assert choice(corpus, "attacks", None, holds=True) is None
    assert choice(corpus, "attacks", "bulk", holds=False) == "bulk"


def test_a_folder_that_is_no_corpus_is_named(tmp_path):
    with pytest.raises(HarnessError, match="holds no run.py"):
        Corpus(tmp_path)


@pytest.mark.parametrize(
    "suite, status, expected",
    [
        ("attacks", "blocked", True), ("attacks", "masked", True), ("attacks", "leaked", False), ("attacks", "crashed", False),
        ("benign", "equal", True), ("benign", "over-masked", False), ("benign", "blocked", False), ("benign", "wrong", False),
    ],
)
def test_one_failure_in_either_suite_is_not_clean(suite, status, expected):
    reports = {name: {"totals": {}, "cases": [{}]} for name in ("attacks", "benign")}
    reports[suite]["totals"] = {status: 1}
    assert clean(reports) is expected


def test_a_run_without_cases_is_not_clean():
    reports = {name: {"totals": {}, "cases": []} for name in ("attacks", "benign")}
    assert not clean(reports) and not clean(reports, chosen=True)
    reports["benign"]["cases"] = [{}]
    assert not clean(reports) and clean(reports, chosen=True)


@pytest.mark.parametrize("options, status, outcomes", [([], 0, ("masked", "masked-as-expected")), (["--direct"], 3, ("leaked", "leaked"))])
def test_a_corpus_from_start_to_end(folder, options, status, outcomes):
    out = folder / "out.json"
    command = [sys.executable, E2E / "redteam", "--corpus", folder, "--json", out, *options]
    environment = {**os.environ, "EXEAT_BIN": str(binary())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-2:] == [f"attacks: {outcomes[0]}", f"benign: {outcomes[1]}"]
    assert "two (needs a newer server)" in done.stdout
    reports = json.loads(out.read_text())
    assert [reports[suite]["totals"] for suite in ("attacks", "benign")] == [{outcome: 1} for outcome in outcomes]
    hidden = "secret" if options else "[redacted by exeat]"
    assert reports["attacks"]["cases"][0]["row"] == [1, hidden, hidden]
