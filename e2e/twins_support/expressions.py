"""Random expressions of a kind over columns in scope. A safe maker knows no sealed column and only functions that
neither fail nor depend on anything but their arguments; the other one knows all columns and every kind of call."""

LITERALS = {
    "int": ["0", "1", "2", "7", "42"], "num": ["0.5", "10", "99.95"], "text": ["'a'::text", "'Boston'::text", "''::text", "'m'::text"],
    "date": ["date '2024-05-01'", "date '1980-01-01'"], "ts": ["timestamptz '2024-06-01 00:00:00+00'"],
    "bool": ["true", "false", "NULL::boolean"], "json": ["'{\"a\": 1}'::jsonb"], "bytea": ["'\\x00'::bytea"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'::uuid"], "array": ["ARRAY['a', 'b']"],
}
# {kind} stands for an expression of that kind, {any} for one of any kind.
TOTAL = {
    "int": ["coalesce({int}, {int})", "length({text})", "abs({int})", "({int} % 7)", "CASE WHEN {bool} THEN {int} ELSE {int} END",
            "greatest({int}, {int})", "nullif({int}, {int})"],
    "num": ["({num} + {num})", "({num} - {num})", "abs({num})", "round({num})", "coalesce({num}, 0)", "{int}::numeric"],
    "text": ["lower({text})", "upper({text})", "({text} || {text})", "coalesce({text}, {text})", "{int}::text", "{date}::text",
             "trim({text})", "CASE WHEN {bool} THEN {text} END", "left({text}, 3)", "concat({text}, {int})"],
    "date": ["coalesce({date}, {date})", "least({date}, {date})", "({date} + 1)"],
    "ts": ["coalesce({ts}, {ts})", "date_trunc('month', {ts})"],
    "bool": ["({int} = {int})", "({int} < {int})", "({text} = {text})", "({text} LIKE 'a%')", "({date} > {date})", "({any} IS NULL)",
             "({bool} AND {bool})", "({bool} OR {bool})", "(NOT {bool})", "({num} BETWEEN {num} AND {num})", "({int} IN (1, 2, 3))",
             "({text} IS DISTINCT FROM {text})"],
    "json": ["jsonb_build_object('a', {int}, 'b', {text})", "to_jsonb({text})"],
    "bytea": ["coalesce({bytea}, {bytea})"], "uuid": ["coalesce({uuid}, {uuid})"], "array": ["ARRAY[{text}, {text}]"],
}
RISKY = {
    "int": ["({int} / {int})", "({int} * {int})", "{text}::int", "strpos({text}, 'a')", "ascii({text})", "octet_length({text})",
            "pg_column_size({any})", "extract(year FROM {date})::int", "hashtext({text})", "width_bucket({num}, 0, 10, 5)",
            "array_length({array}, 1)", "get_byte({bytea}, 0)", "bit_length({text})", "num_nulls({any}, {any})", "({date} - {date})"],
    "num": ["({num} / {num})", "sqrt({num})", "ln({num})", "({num} ^ 2)", "{text}::numeric", "similarity({text}, {text})::numeric",
            "extract(epoch FROM {ts})"],
    "text": ["substr({text}, 1, 2)", "repeat({text}, {int})", "md5({text})", "left({text}, {int})", "split_part({text}, '-', 1)",
             "regexp_replace({text}, '[0-9]', 'x')", "format('%s-%s', {any}, {any})", "translate({text}, 'abc', 'xyz')",
             "to_char({date}, 'YYYY')", "({json} ->> 'a')", "({array})[1]", "encode({bytea}, 'hex')", "quote_literal({text})",
             "overlay({text} placing 'x' from 1)", "({any})::text", "pg_typeof({any})::text", "reverse({text})", "chr({int})",
             "xmlserialize(content xmlelement(name a, {any}) as text)", "right({text}, 2)", "array_to_string({array}, ',')",
             "(ROW({any}, {any}))::text", "convert_from({bytea}, 'UTF8')", "jsonb_pretty({json})", "unaccent({text})"],
    "date": ["({date} - 1)", "to_date({text}, 'YYYY')", "{ts}::date", "{text}::date"],
    "ts": ["({ts} + interval '1 day')", "{text}::timestamptz", "{date}::timestamptz"],
    "bool": ["({text} ~ 'a')", "({text} > {text})", "({num} > {num})", "({json} @> {json})", "({json} ? 'a')", "({text} = ANY ({array}))",
             "({int}, {text}) < ({int}, {text})", "({text} SIMILAR TO 'a%')", "({bytea} > {bytea})", "({uuid} = {uuid})",
             "({text} ILIKE 'a%')", "({array} && {array})", "(ROW({any}, 1) IS NOT NULL)", "({text} IN ({text}, {text}))",
             "({text} COLLATE \"C\" < 'm')", "starts_with({text}, 'a')"],
    "json": ["({json} -> 'a')", "({json} #> '{{a}}')", "jsonb_set({json}, '{{a}}', '1')", "({json} || {json})", "{text}::jsonb",
             "jsonb_path_query_first({json}, '$.*')", "jsonb_strip_nulls({json})", "to_jsonb({any})", "json_build_array({any})::jsonb"],
    "bytea": ["convert_to({text}, 'UTF8')", "sha256({bytea})", "substr({bytea}, 1, 2)"],
    "uuid": ["{text}::uuid", "md5({text})::uuid"],
    "array": ["string_to_array({text}, '-')", "array_append({array}, {text})", "regexp_split_to_array({text}, '')", "({array})[1:1]"],
}
KINDS = tuple(LITERALS)
DEPTH_MAX = 3


class Expressions:
    """`columns`: (alias, Column) pairs in scope."""

    def __init__(self, random, columns, safe):
        self.random = random
        self.columns = [(alias, column) for alias, column in columns if not (safe and column.sealed)]
        self.safe = safe

    def leaf(self, kind):
        fitting = [f"{alias}.{column.quoted}" for alias, column in self.columns if column.kind == kind]
        if fitting and self.random.random() < 0.8:
            return self.random.choice(fitting)
        return self.random.choice(LITERALS[kind])

    def make(self, kind, depth=DEPTH_MAX):
        if depth <= 0 or self.random.random() < 0.35:
            return self.leaf(kind)
        forms = TOTAL[kind]
        if not self.safe and self.random.random() < 0.5:
            forms = RISKY[kind]
        form = self.random.choice(forms)
        return _Filler(self, depth - 1).fill(form)

    def any(self, depth=DEPTH_MAX):
        return self.make(self.random.choice(KINDS), depth)


class _Filler:
    """Puts a fresh expression in each place of a form."""

    def __init__(self, expressions, depth):
        self._expressions, self._depth = expressions, depth

    def fill(self, form):
        return form.format_map(self)

    def __getitem__(self, kind):
        if kind == "any":
            return self._expressions.any(self._depth)
        return self._expressions.make(kind, self._depth)
