"""The comparison of the clients' suites can fail: on what nobody explained, and on what no longer differs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "peers"))

import differences  # noqa: E402
import suites  # noqa: E402
from differences import HEADER, UNSTEADY_HEADER, Difference  # noqa: E402
from lib.run import HarnessError  # noqa: E402

ROW = "| asyncpg | `tests.test_a::b \\| c` | 15, 18 | passed | failed | login role: the token decides |"
EXPLAINED = Difference("asyncpg", "tests.test_a::b | c", "passed", "failed")
OTHER = Difference("jdbc", "copy", "passed", "failed")


def page(*rows):
    return "\n".join(["# Page", "", HEADER, "|---|---|---|---|---|---|", *rows, "", "| not | of | it |"])


def test_a_row_of_the_table_explains_one_difference_on_its_servers():
    for major, expected in ((15, [EXPLAINED]), (18, [EXPLAINED]), (17, [])):
        assert list(differences.explained(page(ROW), major)) == expected


@pytest.mark.parametrize(
    "row",
    [
        ROW.replace("login role:", "it is so:"),
        ROW.replace("| failed |", "| passed |"),
        ROW.replace("| failed |", "| broken |"),
        ROW.replace("| 15, 18 ", ""),
    ],
)
def test_a_row_without_an_accepted_reason_or_a_difference_is_refused(row):
    with pytest.raises(HarnessError):
        differences.explained(page(row), 15)


def test_an_unsteady_test_may_differ_and_another_of_its_suite_may_not():
    text = "\n".join([UNSTEADY_HEADER, "|---|---|---|", "| jdbc | `copy` | directly 3 of 20, through the gateway 4 of 20 |"])
    wavering = differences.unsteady(text)
    other = Difference("jdbc", "batch", "passed", "failed")
    assert differences.judge([OTHER, other], {}, wavering, ["jdbc"]) == ([other], [])


@pytest.mark.parametrize("seen", ["directly 0 of 20, through the gateway 4 of 20", "directly 20 of 20, through the gateway 20 of 20", "often"])
def test_a_test_that_is_steady_without_a_gateway_is_not_unsteady(seen):
    with pytest.raises(HarnessError):
        differences.unsteady("\n".join([UNSTEADY_HEADER, "|---|---|---|", f"| jdbc | `copy` | {seen} |"]))


def test_a_page_without_the_table_is_refused():
    with pytest.raises(HarnessError):
        differences.explained("# Page", 15)
    with pytest.raises(HarnessError):
        differences.unsteady("# Page")


def test_the_page_in_the_repository_is_read():
    for major in (15, 18):
        table = differences.explained(differences.PAGE.read_text(encoding="utf-8"), major)
        assert all(row.direct != row.gateway for row in table)
    differences.unsteady(differences.PAGE.read_text(encoding="utf-8"))


def test_tests_that_differ_or_are_on_one_side_only_are_found():
    direct = {"same": "failed", "worse": "passed", "gone": "passed"}
    through = {"same": "failed", "worse": "failed", "new": "skipped"}
    found = {d.test: (d.direct, d.gateway) for d in differences.between("s", direct, through)}
    assert found == {"worse": ("passed", "failed"), "gone": ("passed", "absent"), "new": ("absent", "skipped")}


def test_only_differences_that_the_table_names_are_accepted():
    table = {EXPLAINED: "reason"}
    assert differences.judge([EXPLAINED], table, set(), ["asyncpg"]) == ([], [])
    assert differences.judge([EXPLAINED, OTHER], table, set(), ["asyncpg", "jdbc"]) == ([OTHER], [])


def test_an_explanation_of_what_no_longer_differs_is_found_where_its_suite_ran():
    table = {EXPLAINED: "reason"}
    assert differences.judge([], table, set(), ["asyncpg"]) == ([], [EXPLAINED])
    assert differences.judge([], table, set(), ["jdbc"]) == ([], [])


@pytest.mark.parametrize("read", [{}, {"(did not start: see the log)": "failed"}, {"a": "failed"}, {"a": "passed", "(timeout)": "failed"}])
def test_a_suite_that_did_not_run_directly_is_no_baseline(tmp_path, read):
    results = tmp_path / "results"
    results.mkdir()
    (results / "s.direct.json").write_text(json.dumps(read))
    with pytest.raises(HarnessError):
        differences.baseline(tmp_path, "s", "direct")


def test_a_suite_that_ran_directly_is_a_baseline(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "s.direct.json").write_text('{"a": "passed", "b": "failed"}')
    assert differences.baseline(tmp_path, "s", "direct") == {"a": "passed", "b": "failed"}


def test_a_folder_that_was_named_and_holds_no_suites_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("EXEAT_PEERS", str(tmp_path))
    with pytest.raises(HarnessError):
        suites.folder()


def test_a_suite_whose_programs_are_missing_is_left_out_with_its_packages(monkeypatch):
    monkeypatch.setitem(suites.NEEDS, "jdbc", [suites.Need("/no/such/file", "a-package"), suites.Need("sh", "dash")])
    assert suites.runnable(["jdbc", "psql_smoke"]) == (["psql_smoke"], {"jdbc": ["a-package"]})
