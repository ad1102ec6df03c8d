"""The server's rewritten query tree, as `debug_print_rewritten` prints it, and which stored columns are in it.

A second reading of a statement, by somebody else's analysis: the tree is what the server itself resolved, with views
replaced by their definitions. `outputs` are the columns each result column is computed from, `influences` those that
decide about rows, order and groups.
"""

import re

TOKEN = re.compile(r"[{}()\[\]]|(?:\\.|[^\s{}()\[\]\\])+")
RELATION, SUBQUERY, JOIN, CTE, GROUP = "0", "1", "2", "6", "9"
SELECT, UTILITY = "1", "6"
UNION = "1"
EXISTS = "0"
WHOLE_ROW = 0


class Node(dict):
    """The fields of a node; `name` is its type, as in VAR or QUERY."""

    def __init__(self, name):
        super().__init__()
        self.name = name


def parse(text):
    value, _ = _value([match[0] for match in TOKEN.finditer(text)], 0)
    return value


def _value(tokens, at):
    if tokens[at] == "{":
        return _node(tokens, at + 1)
    if tokens[at] in "([":
        items, at = [], at + 1
        while tokens[at] not in ")]":
            item, at = _value(tokens, at)
            items.append(item)
        return items, at + 1
    return tokens[at], at + 1


def _node(tokens, at):
    node, at, field = Node(tokens[at]), at + 1, None
    while tokens[at] != "}":
        if tokens[at].startswith(":"):
            field, at = tokens[at][1:], at + 1
            node[field] = None
            continue
        item, at = _value(tokens, at)
        # A constant's bytes follow its length: nothing that is looked at here.
        node[field] = item if node[field] is None else node[field]
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
                found |= self.influences(Level(one["subquery"], level))
            elif kind == CTE:
                found |= self._cte(one, level, "influences")
            elif kind not in (RELATION, JOIN, GROUP):
                found |= self.within(list(one.values()), level)
        return found

    def within(self, value, level):
        """Every column in an expression."""
        if isinstance(value, Node) and value.name == "VAR":
            return self._variable(value, level.up(value["varlevelsup"]))
        if isinstance(value, Node) and value.name == "QUERY":
            inner = Level(value, level)
            return self.influences(inner).union(*self.outputs(inner))
        if isinstance(value, Node) and value.name == "SUBLINK" and value["subLinkType"] == EXISTS:
            # Whether there is a row is all that is asked.
            return self.influences(Level(value["subselect"], level))
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        return set().union(*(self.within(part, level) for part in parts))

    def _variable(self, variable, level):
        at, attribute = int(variable["varno"]), int(variable["varattno"])
        if not 0 < at <= len(level.ranges):
            return set()
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
        return set()

    def _cte(self, one, level, wanted):
        """What is wanted of the query behind a name: an output or the influences. Nothing more where it names itself."""
        home = level.up(one["ctelevelsup"])
        for entry in entries(home.query.get("cteList")):
            key = (id(entry), wanted)
            if entry["ctename"] != one["ctename"] or key in self._open or not isinstance(entry["ctequery"], Node):
                continue
            self._open.add(key)
            inner = Level(entry["ctequery"], home)
            found = self.influences(inner) if wanted == "influences" else chosen(self.outputs(inner), wanted)
            self._open.discard(key)
            return found
        return set()


def chosen(outputs, attribute):
    if attribute == WHOLE_ROW:
        return set().union(*outputs)
    return outputs[attribute - 1] if attribute <= len(outputs) else set()


def read(text):
    """(columns of each output, all columns) of a printed tree: a list of queries."""
    outputs, everything = [], set()
    for query in entries(parse(text)):
        if query.name == "QUERY" and query["commandType"] != UTILITY:
            level, reader = Level(query), Reader()
            outputs = reader.outputs(level)
            everything |= reader.influences(level).union(*outputs)
    return outputs, everything
