"""Where a sealed value goes, its mask goes. Every shape runs against the real server, which must announce the
columns as predicted; a difference ends the session."""

import psycopg
import pytest

MASKED = "masked"  # NULL, or the text that stands for a value
NEVER_NULL = "masked, and NULL too"

# One row of customer 1 or an aggregate of all: each column's value, or MASKED.
SHAPES = {
    "SELECT upper(ssn), id FROM customers WHERE id = 1": [MASKED, 1],
    "SELECT ssn || ' ' || city, city FROM customers WHERE id = 1": [MASKED, "plain"],
    "SELECT ssn::text, ssn::varchar(3), birth_date::text FROM customers WHERE id = 1": [MASKED, MASKED, MASKED],
    "SELECT max(ssn), min(email), count(lower(ssn)), array_agg(ssn), string_agg(ssn, ','), count(*) > 1 FROM customers":
        [MASKED, MASKED, MASKED, MASKED, MASKED, True],
    # How many are NULL is shown already.
    "SELECT count(ssn) FILTER (WHERE id = 1), count(c.*) FILTER (WHERE id = 1) FROM customers c": [1, 1],
    "SELECT c, row(c.ssn), ARRAY[c.ssn], to_jsonb(c), row_to_json(c)::text FROM customers c WHERE id = 1": [MASKED] * 5,
    "SELECT (SELECT ssn FROM customers WHERE id = 1), ARRAY(SELECT ssn FROM customers)": [MASKED, MASKED],
    "SELECT s FROM (SELECT ssn AS s FROM customers WHERE id = 1) x": [MASKED],
    "SELECT x FROM (SELECT lower(ssn) AS x FROM customers WHERE id = 1) y": [MASKED],
    "SELECT x || 'y' FROM (SELECT lower(ssn) AS x FROM customers WHERE id = 1) y": [MASKED],
    "WITH w AS (SELECT ssn AS city, city AS ssn FROM customers WHERE id = 1) SELECT city, ssn FROM w": [MASKED, "plain"],
    "WITH w AS MATERIALIZED (SELECT * FROM customers) SELECT w.ssn, w.* FROM w WHERE id = 1": None,
    "WITH RECURSIVE r(a, b, n) AS (SELECT city::text, ssn::text, 1 FROM customers WHERE id = 1 "
    "UNION ALL SELECT b, a, n + 1 FROM r WHERE n < 3) SELECT a, b, n FROM r WHERE n = 2": [MASKED, MASKED, 2],
    "SELECT ssn FROM customers WHERE id = 1 UNION ALL SELECT 'x' WHERE false": [MASKED],
    "SELECT a.ssn, b.ssn FROM customers a, LATERAL (SELECT a.ssn) b WHERE a.id = 1": [MASKED, MASKED],
    "SELECT id, ssn FROM customers a JOIN (SELECT id FROM customers) b USING (id) WHERE id = 1": [1, MASKED],
    "SELECT id, a.ssn, b.ssn FROM customers a FULL JOIN customers b USING (id) WHERE id = 1": [1, MASKED, MASKED],
    "SELECT CASE WHEN id = 1 THEN ssn ELSE city END, coalesce(ssn, 'none'), greatest(ssn, '0') FROM customers WHERE id = 1":
        [MASKED, MASKED, MASKED],
    "SELECT lag(ssn, 0) OVER (ORDER BY id), first_value(ssn) OVER (PARTITION BY id) FROM customers WHERE id = 1":
        [MASKED, MASKED],
    "SELECT ssn = '137-54-7920', ssn IS NULL, ssn > 'a' AND NULL, NOT (ssn = email) FROM customers WHERE id = 1":
        [MASKED] * 4,
    # NULL where the comparison holds, else 'false'.
    "SELECT lower(((ssn > 'a') AND NULL)::text) FROM customers WHERE id = 1": [NEVER_NULL],
    "SELECT * FROM (VALUES (1, (SELECT ssn FROM customers WHERE id = 1))) v(a, b)": [1, MASKED],
    "SELECT x.a FROM (customers c JOIN orders o ON o.customer_id = c.id) AS x(i, a) WHERE x.i = 1 LIMIT 1": None,
    "SELECT max(ssn) FILTER (WHERE id = 1), min(ssn) FROM customers GROUP BY GROUPING SETS ((), ()) LIMIT 1": [MASKED, MASKED],
    "SELECT DISTINCT ON (id) ssn, id FROM customers WHERE id = 1 ORDER BY id": [MASKED, 1],
}


@pytest.fixture(scope="module")
def clear(shop):
    """Every value of the sealed columns, as it must not appear."""
    with psycopg.connect(shop.admin.text()) as admin:
        rows = admin.execute("SELECT ssn, email, phone, birth_date::text FROM customers").fetchall()
        city = admin.execute("SELECT city FROM customers WHERE id = 1").fetchone()[0]
    return {value.lower() for row in rows for value in row if value}, city


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("sql", SHAPES)
def test_a_value_stays_masked_wherever_it_goes(agent, clear, sql, binary):
    values, city = clear
    with psycopg.connect(agent.text()) as connection, connection.cursor(binary=binary) as cursor:
        rows = cursor.execute(sql).fetchall()
    assert len(rows) == 1
    for row in rows:
        shown = repr(row).lower()
        assert not any(value in shown for value in values), shown
    expected = SHAPES[sql]
    if expected is None:
        return
    assert len(rows[0]) == len(expected)
    for cell, wanted in zip(rows[0], expected):
        if wanted is NEVER_NULL:
            assert cell == "[redacted by exeat]"
        elif wanted is MASKED:
            assert cell is None or "redacted by exeat" in str(cell) or "*" in str(cell), cell
        else:
            assert cell == (city if wanted == "plain" else wanted)


@pytest.mark.parametrize("what", ["SELECT c FROM customers c", "SELECT to_json(c), upper(ssn) FROM customers c", "TABLE customers"])
@pytest.mark.parametrize("options", ["", " WITH (FORMAT csv, HEADER)", " WITH (FORMAT binary)"])
def test_a_copy_of_it_stays_masked_too(agent, clear, what, options):
    values, _ = clear
    with psycopg.connect(agent.text()) as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY ({what}) TO STDOUT{options}") as copy:
            shown = b"".join(bytes(piece) for piece in copy).decode(errors="replace").lower()
    assert shown and not any(value in shown for value in values)
