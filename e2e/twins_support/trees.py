"""The server's rewritten query tree, as `debug_print_rewritten` prints it, and which stored columns are in it.

A second reading of a statement, by somebody else's analysis: the tree is what the server itself resolved, with views
replaced by their definitions. `outputs` are the columns each result column is computed from, `influences` those that
decide about rows, order and groups. A node that is not known here is an error with its name, never passed over.
"""

import re

# As the server's own reader takes them apart; brackets are words, around the bytes of a constant.
TOKEN = re.compile(r"[{}()]|(?:\\.|[^\s{}()\\])+", re.S)
# The server breaks what it prints into lines of this many bytes: in the place of a space, or within a word without any.
LINE_BYTES = 78
RELATION, SUBQUERY, JOIN, FUNCTION, TABLE_FUNCTION, VALUES, CTE, RESULT, GROUP = "012345689"
SELECT, UTILITY = "1", "6"
UNION = "1"
EXISTS = "0"
WHOLE_ROW = 0
# What a query of PostgreSQL 14 to 18 is made of once it is rewritten, and what all of it is looked through for.
KNOWN = frozenset("""
    QUERY COMMONTABLEEXPR CTESEARCHCLAUSE CTECYCLECLAUSE RANGETBLENTRY RTE RTEPERMISSIONINFO RANGETBLFUNCTION TABLESAMPLECLAUSE
    ALIAS RANGETBLREF JOINEXPR FROMEXPR ONCONFLICTEXPR INFERENCEELEM TARGETENTRY SORTGROUPCLAUSE GROUPINGSET WINDOWCLAUSE
    ROWMARKCLAUSE SETOPERATIONSTMT WITHCHECKOPTION MERGEACTION VAR CONST PARAM AGGREF GROUPINGFUNC WINDOWFUNC MERGESUPPORTFUNC
    SUBSCRIPTINGREF FUNCEXPR NAMEDARGEXPR OPEXPR DISTINCTEXPR NULLIFEXPR SCALARARRAYOPEXPR BOOLEXPR SUBLINK FIELDSELECT FIELDSTORE
    RELABELTYPE COERCEVIAIO ARRAYCOERCEEXPR CONVERTROWTYPEEXPR COLLATEEXPR CASEEXPR CASE CASEWHEN WHEN CASETESTEXPR ARRAYEXPR ARRAY
    ROWEXPR ROW ROWCOMPAREEXPR ROWCOMPARE COALESCEEXPR COALESCE MINMAXEXPR MINMAX SQLVALUEFUNCTION XMLEXPR JSONFORMAT JSONRETURNING
    JSONVALUEEXPR JSONCONSTRUCTOREXPR JSONISPREDICATE JSONEXPR JSONBEHAVIOR JSONTABLEPATH JSONTABLEPATHSCAN JSONTABLESIBLINGJOIN
    NULLTEST BOOLEANTEST COERCETODOMAIN COERCETODOMAINVALUE SETTODEFAULT CURRENTOFEXPR NEXTVALUEEXPR TABLEFUNC TABLEFUNCEXPR
    RETURNINGEXPR
""".split())
# The server's own list of every column of `excluded`. What is read of it stands in the expressions beside it.
NOT_READ = {"ONCONFLICTEXPR": "exclRelTlist"}


class Unreadable(Exception):
    """A tree that says something nobody has taught this reader."""


class Node(dict):
    """The fields of a node; `name` is its type, as in VAR or QUERY."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def __missing__(self, field):
        raise Unreadable(f"{self.name} without {field}")


def parse(text):
    tokens = [match[0] for match in TOKEN.finditer(unwrapped(text))]
    try:
        value, end = _value(tokens, 0)
    except IndexError as error:
        raise Unreadable("a tree that ends too early") from error
    if end != len(tokens):
        raise Unreadable(f"words behind the tree: {tokens[end]}")
    return value


def unwrapped(text):
    """The lines put together again."""
    found = []
    for line in text.split("\n"):
        within_word = len(line.encode()) == LINE_BYTES and " " not in line[1:]
        found.append(line if within_word else f"{line} ")
    return "".join(found)


def _value(tokens, at):
    if tokens[at] == "{":
        return _node(tokens, at + 1)
    if tokens[at] == "(":
        items, at = [], at + 1
        while tokens[at] != ")":
            item, at = _value(tokens, at)
            items.append(item)
        return items, at + 1
    if tokens[at] in ")}":
        raise Unreadable(f"{tokens[at]} in the place of a value")
    return tokens[at], at + 1


def _node(tokens, at):
    if tokens[at] == "}":
        return Node("of a kind that the server does not print"), at + 1
    node, at = Node(tokens[at]), at + 1
    while tokens[at] != "}":
        if tokens[at].startswith(":"):
            node[tokens[at][1:]], at = _value(tokens, at + 1)
        else:
            # A constant's bytes behind their number, the kind of an expression that is not resolved: nothing that is looked at.
            _, at = _value(tokens, at)
    return node, at + 1


def entries(value):
    return [one for one in value if isinstance(one, Node)] if isinstance(value, list) else []


class Level:
    """A query within the queries around it."""

    def __init__(self, query, outer=None):
        self.query, self.outer = query, outer
        self.ranges = entries(query.get("rtable"))

    def up(self, levels):
        level = self
        for _ in range(int(levels)):
            level = level.outer
        return level

    def sort_references(self):
        """Numbers of the result columns that rows are sorted, grouped or made distinct by."""
        clauses = [self.query.get(name) for name in ("sortClause", "groupClause", "distinctClause")]
        for window in entries(self.query.get("windowClause")):
            clauses += [window.get("partitionClause"), window.get("orderClause")]
        return {one["tleSortGroupRef"] for clause in clauses for one in entries(clause)}


class Reader:
    """Columns as (relation, attribute); attribute 0 is the whole row."""

    def __init__(self):
        self._open = set()

    def outputs(self, level):
        query = level.query
        if isinstance(query.get("setOperations"), Node):
            leaves = [self.outputs(Level(one["subquery"], level)) for one in level.ranges if one["rtekind"] == SUBQUERY]
            return [set().union(*columns) for columns in zip(*leaves)]
        returned = query.get("returningList") if query["commandType"] != SELECT else query.get("targetList")
        return [self.within(one["expr"], level) for one in entries(returned) if one["resjunk"] == "false"]

    def influences(self, level):
        query, found, sorted_by = level.query, set(), level.sort_references()
        for target in entries(query.get("targetList")):
            if target["resjunk"] == "true" or target["ressortgroupref"] in sorted_by or query["commandType"] != SELECT:
                found |= self.within(target["expr"], level)
        if self._merges_equal(query.get("setOperations")):
            found |= set().union(*self.outputs(level))
        for field, value in query.items():
            if field not in ("targetList", "returningList", "rtable", "cteList", "setOperations"):
                found |= self.within(value, level)
        return found | self._of_ranges(level)

    def _merges_equal(self, operation):
        if not isinstance(operation, Node) or operation.name != "SETOPERATIONSTMT":
            return False
        kept = operation["all"] == "true" and operation["op"] == UNION
        return not kept or self._merges_equal(operation["larg"]) or self._merges_equal(operation["rarg"])

    def _of_ranges(self, level):
        found = set()
        for one in level.ranges:
            kind = one["rtekind"]
            if kind == SUBQUERY:
                found |= self.influences(Level(one["subquery"], level)) | self.within(one.get("securityQuals"), level)
            elif kind == CTE:
                found |= self._cte(one, level, "influences")
            elif kind == RELATION:
                found |= self.within([one["tablesample"], one["securityQuals"]], level)
            elif kind in (FUNCTION, TABLE_FUNCTION, VALUES):
                found |= self.within(list(one.values()), level)
            elif kind not in (JOIN, GROUP, RESULT):
                raise Unreadable(f"range of kind {kind}")
        return found

    def within(self, value, level):
        """Every column in an expression."""
        if isinstance(value, list):
            return set().union(*(self.within(part, level) for part in value))
        if not isinstance(value, Node):
            return set()
        if value.name not in KNOWN:
            raise Unreadable(f"node {value.name}")
        if value.name == "VAR":
            return self._variable(value, level.up(value["varlevelsup"]))
        if value.name == "QUERY":
            inner = Level(value, level)
            return self.influences(inner).union(*self.outputs(inner))
        if value.name == "SUBLINK" and value["subLinkType"] == EXISTS:
            # Whether there is a row is all that is asked.
            return self.influences(Level(value["subselect"], level))
        parts = [part for field, part in value.items() if field != NOT_READ.get(value.name)]
        return self.within(parts, level)

    def _variable(self, variable, level):
        at, attribute = int(variable["varno"]), int(variable["varattno"])
        if not 0 < at <= len(level.ranges):
            raise Unreadable(f"column of range {at}, of {len(level.ranges)}")
        one = level.ranges[at - 1]
        kind = one["rtekind"]
        if kind == RELATION:
            return {(int(one["relid"]), attribute)}
        if kind == SUBQUERY:
            return chosen(self.outputs(Level(one["subquery"], level)), attribute)
        if kind in (JOIN, GROUP):
            parts = one["joinaliasvars"] if kind == JOIN else one["groupexprs"]
            return self.within(parts if attribute == WHOLE_ROW else parts[attribute - 1], level)
        if kind == CTE:
            return self._cte(one, level, attribute)
        if kind == VALUES:
            return set().union(*(chosen([self.within(part, level) for part in row], attribute) for row in one["values_lists"]))
        if kind in (FUNCTION, TABLE_FUNCTION):
            return self.within(one["functions" if kind == FUNCTION else "tablefunc"], level)
        raise Unreadable(f"column of a range of kind {kind}")

    def _cte(self, one, level, wanted):
        """What is wanted of the query behind a name: an output or the influences. Nothing more where it names itself."""
        home = level.up(one["ctelevelsup"])
        entry = next((entry for entry in entries(home.query["cteList"]) if entry["ctename"] == one["ctename"]), None)
        if entry is None:
            raise Unreadable(f"no WITH of the name {one['ctename']}")
        key = (id(entry), wanted)
        if key in self._open:
            return set()
        self._open.add(key)
        inner = Level(entry["ctequery"], home)
        found = self.influences(inner) if wanted == "influences" else chosen(self.outputs(inner), wanted)
        self._open.discard(key)
        return found


def chosen(outputs, attribute):
    if attribute == WHOLE_ROW:
        return set().union(*outputs)
    if not 0 < attribute <= len(outputs):
        raise Unreadable(f"column {attribute} of {len(outputs)}")
    return outputs[attribute - 1]


def read(text):
    """(columns of each output, all columns) of a printed tree: a list of queries."""
    outputs, everything = [], set()
    for query in entries(parse(text)):
        if query.name == "QUERY" and query["commandType"] != UTILITY:
            level, reader = Level(query), Reader()
            outputs = reader.outputs(level)
            everything |= reader.influences(level).union(*outputs)
    return outputs, everything
