"""One OVSDB transaction on the tables of one node, as RFC 7047 §5.2 and ovsdb-server have it.

Invariant: the tables given are never altered. A transaction that commits gives new tables in which every reference
points at a row, every row hangs off the root, and no two rows of a table share a name; any other gives none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from providers.twin.schema import IDENTITY, NAMED, ROOT, TABLES, Column, OpError, encode, parse, text

Row = dict[str, Any]
Tables = dict[str, dict[str, Row]]

_MEMBERS = {
    "select": ({"table", "where"}, {"columns"}),
    "insert": ({"table", "row"}, {"uuid-name"}),
    "update": ({"table", "where", "row"}, set()),
    "mutate": ({"table", "where", "mutations"}, set()),
    "delete": ({"table", "where"}, set()),
    "wait": ({"table", "where", "until", "rows"}, {"timeout", "columns"}),
    "comment": ({"comment"}, set()),
    "abort": (set(), set()),
    "commit": ({"durable"}, set()),
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KINDS: dict[str, Callable[[Any], bool]] = {
    "table": lambda value: isinstance(value, str),
    "where": lambda value: isinstance(value, list),
    "columns": lambda value: isinstance(value, list),
    "row": lambda value: isinstance(value, dict),
    "rows": lambda value: isinstance(value, list),
    "mutations": lambda value: isinstance(value, list),
    "uuid-name": lambda value: isinstance(value, str) and _NAME.fullmatch(value) is not None,
    "until": lambda value: isinstance(value, str),
    "timeout": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "comment": lambda value: isinstance(value, str),
    "durable": lambda value: isinstance(value, bool),
}
_DEFAULTS = {
    table: {name: encode(column, column.default) for name, column in columns.items()}
    for table, columns in TABLES.items()
}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda have, want: have < want,
    "<=": lambda have, want: have <= want,
    ">": lambda have, want: have > want,
    ">=": lambda have, want: have >= want,
}
_SUMS: dict[str, Callable[[int, int], int]] = {
    "+=": lambda have, by: have + by,
    "-=": lambda have, by: have - by,
    "*=": lambda have, by: have * by,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one transaction.

    `tables` is None unless something changed. `changed` names (table, column), with `_row` for a row that came or
    went. `waits` is set when nothing but an unfulfilled `wait` stands in the way: the seconds it may still take.
    """

    results: list[Any]
    tables: Tables | None = None
    changed: frozenset[tuple[str, str]] = frozenset()
    waits: float | None = None


class _Blocked(Exception):
    def __init__(self, left: float) -> None:
        super().__init__(left)
        self.left = left


def value_of(table: str, row: Row, name: str) -> Any:
    """A column's value; only values other than the default are kept in a row."""
    return row[name] if name in row else TABLES[table][name].default


def render(table: str, uuid: str, row: Row, columns: Sequence[str] | None = None) -> Row:
    """A row in the notation of the wire."""
    whole: Row = {"_uuid": ["uuid", uuid], "_version": ["uuid", row["_version"]], **_DEFAULTS[table]}
    for name, value in row.items():
        if name != "_version":
            whole[name] = encode(TABLES[table][name], value)
    return whole if columns is None else {name: whole[name] for name in columns}


@dataclass(slots=True)
class _Transaction:
    before: Tables
    mint: Callable[[], str]
    elapsed: float
    tables: Tables = field(init=False)
    names: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    # In the order of the operations, which decides what a refusal names.
    touched: dict[tuple[str, str], None] = field(default_factory=dict)
    deleted: dict[tuple[str, str], None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tables = {table: dict(rows) for table, rows in self.before.items()}

    def resolve(self, name: str) -> str:
        if name not in self.names:
            self.names[name] = self.mint()
        return self.names[name]

    def columns(self, table: str, names: list[str] | None) -> list[str]:
        if names is None:
            return ["_uuid", "_version", *TABLES[table]]
        if any(not isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise OpError("syntax error", "array of distinct column names expected", text(names))
        for name in names:
            if name not in TABLES[table] and name not in ("_uuid", "_version"):
                raise OpError("syntax error", f"{name} is not a valid column name", text(names))
        return names

    def row(self, table: str, body: Any) -> Row:
        if not isinstance(body, dict):
            raise OpError("syntax error", "row must be JSON object", text(body))
        found = {}
        for name, value in body.items():
            column = IDENTITY if name in ("_uuid", "_version") else TABLES[table].get(name)
            if column is None:
                raise OpError("unknown column", f"No column {name} in table {table}.", text(body))
            found[name] = parse(column, value, self.resolve)
        return found

    def matching(self, table: str, where: Any) -> list[tuple[str, Row]]:
        tests = [self.clause(table, clause) for clause in where]
        return [(uuid, row) for uuid, row in self.tables[table].items() if all(t(uuid, row) for t in tests)]

    def clause(self, table: str, clause: Any) -> Callable[[str, Row], bool]:
        if isinstance(clause, bool):
            return lambda _uuid, _row: clause
        if not isinstance(clause, list) or len(clause) != 3 or not isinstance(clause[0], str):
            raise OpError("syntax error", "Parse error in condition.", text(clause))
        name, function, argument = clause
        column = IDENTITY if name in ("_uuid", "_version") else TABLES[table].get(name)
        if column is None:
            raise OpError("unknown column", f"No column {name} in table {table}.", text(clause))
        test = _condition(column, name, function, clause)
        want = parse(column, argument, self.resolve, relaxed=function in ("includes", "excludes"))
        if name == "_uuid":
            return lambda uuid, _row: test(uuid, want)
        if name == "_version":
            return lambda _uuid, row: test(row["_version"], want)
        return lambda _uuid, row: test(value_of(table, row, name), want)

    def put(self, table: str, uuid: str, name: str, value: Any) -> None:
        row = self.tables[table][uuid]
        if value_of(table, row, name) == value:
            return
        row = {**row, name: value}
        if value == TABLES[table][name].default:
            del row[name]
        self.tables[table][uuid] = row
        self.touched[table, name] = None

    def select(self, op: Row) -> Row:
        table = op["table"]
        columns = None if op.get("columns") is None else self.columns(table, op["columns"])
        rows = self.matching(table, op["where"])
        return {"rows": [render(table, uuid, row, columns) for uuid, row in rows]}

    def insert(self, op: Row) -> Row:
        table, name = op["table"], op.get("uuid-name")
        if name is not None:
            if name in self.taken:
                details = 'This "uuid-name" appeared on an earlier "insert" operation.'
                raise OpError("duplicate uuid-name", details, text(name))
            self.taken.add(name)
        row = self.row(table, op["row"])
        uuid = self.resolve(name) if name is not None else self.mint()
        kept = {key: value for key, value in row.items() if not key.startswith("_")}
        self.tables[table][uuid] = {
            **{key: value for key, value in kept.items() if value != TABLES[table][key].default},
            "_version": uuid,
        }
        self.touched[table, "_row"] = None
        return {"uuid": ["uuid", uuid]}

    def update(self, op: Row) -> Row:
        table = op["table"]
        row = self.row(table, op["row"])
        for name in row:
            if name.startswith("_") or not TABLES[table][name].mutable:
                details = f"Cannot update immutable column {name} in table {table}."
                raise OpError("constraint violation", details, text(op))
        rows = self.matching(table, op["where"])
        for uuid, _ in rows:
            for name, value in row.items():
                self.put(table, uuid, name, value)
        return {"count": len(rows)}

    def mutate(self, op: Row) -> Row:
        table = op["table"]
        steps = [self.mutation(table, mutation) for mutation in op["mutations"]]
        rows = self.matching(table, op["where"])
        for uuid, _ in rows:
            for name, step in steps:
                changed = step(value_of(table, self.tables[table][uuid], name))
                _check_size(TABLES[table][name], changed)
                self.put(table, uuid, name, changed)
        return {"count": len(rows)}

    def mutation(self, table: str, mutation: Any) -> tuple[str, Callable[[Any], Any]]:
        if not isinstance(mutation, list) or len(mutation) != 3:
            raise OpError("syntax error", "Parse error in mutation.", text(mutation))
        name, mutator, argument = mutation
        column = IDENTITY if name in ("_uuid", "_version") else TABLES[table].get(name)
        if column is None:
            raise OpError("unknown column", f"No column {name} in table {table}.", text(mutation))
        if not column.mutable:
            details = f"Cannot mutate immutable column {name} in table {table}."
            raise OpError("constraint violation", details, text(mutation))
        if mutator in _SUMS or mutator in ("/=", "%="):
            return name, self.sum(column, name, mutator, argument, mutation)
        if mutator not in ("insert", "delete"):
            raise OpError("unknown mutator", f"No mutator named {mutator}.")
        if column.shape == "scalar":
            raise _mismatch(column, name, mutator, mutation)
        return name, self.membership(column, mutator, argument)

    def sum(self, column: Column, name: str, mutator: str, argument: Any, whole: Any) -> Callable[[Any], Any]:
        if column.atom != "integer":
            raise _mismatch(column, name, mutator, whole)
        by: int = parse(Column("integer"), argument, self.resolve)
        if mutator in ("/=", "%="):
            if by == 0:
                raise OpError("domain error", "Division by zero.")
            act: Callable[[int, int], int] = _divide if mutator == "/=" else _remainder
        else:
            act = _SUMS[mutator]
        if column.shape == "scalar":
            return lambda have: act(have, by)
        return lambda have: sorted({act(member, by) for member in have})

    def membership(self, column: Column, mutator: str, argument: Any) -> Callable[[Any], Any]:
        if column.shape == "set":
            members = set(parse(column, argument, self.resolve, relaxed=True))
            if mutator == "insert":
                return lambda have: sorted(set(have) | members)
            return lambda have: [member for member in have if member not in members]
        if mutator == "delete" and not (isinstance(argument, list) and argument[:1] == ["map"]):
            keys = set(parse(Column("string", "set", 0, 2**32), argument, self.resolve))
            return lambda have: {key: value for key, value in have.items() if key not in keys}
        pairs = parse(column, argument, self.resolve)
        if mutator == "delete":
            return lambda have: {key: value for key, value in have.items() if pairs.get(key) != value}
        return lambda have: {**pairs, **have}

    def delete(self, op: Row) -> Row:
        table = op["table"]
        rows = self.matching(table, op["where"])
        for uuid, _ in rows:
            del self.tables[table][uuid]
            self.deleted[table, uuid] = None
            self.touched[table, "_row"] = None
        return {"count": len(rows)}

    def wait(self, op: Row) -> Row:
        table, until, timeout = op["table"], op["until"], op.get("timeout")
        if until not in ("==", "!="):
            raise OpError("syntax error", '"until" must be "==" or "!="', text(until))
        columns = self.columns(table, op.get("columns"))
        wanted = [self.row(table, row) for row in op["rows"]]
        want = {text([row.get(name, _default(table, name)) for name in columns]) for row in wanted}
        rows = self.matching(table, op["where"])
        have = {text([_cell(table, uuid, row, name) for name in columns]) for uuid, row in rows}
        if (have == want) == (until == "=="):
            return {}
        # An instant of today, in seconds, is only exact to a fraction of a microsecond.
        if timeout is None or self.elapsed + 1e-6 < timeout / 1000:
            raise _Blocked(float("inf") if timeout is None else timeout / 1000 - self.elapsed)
        details = '"where" clause test failed' if timeout == 0 else f'"wait" timed out after {timeout} ms'
        raise OpError("timed out", details)

    def comment(self, op: Row) -> Row:
        return {}

    def commit(self, op: Row) -> Row:
        return {}

    def abort(self, op: Row) -> Row:
        raise OpError("aborted", "aborted by request")

    def run(self, op: Any, nth: int, of: int) -> Row:
        prefix = f"Parsing ovsdb operation {nth} of {of} failed: "
        if not isinstance(op, dict):
            raise OpError("syntax error", prefix + "Object expected.")
        if "op" not in op:
            raise OpError("syntax error", prefix + "Required 'op' member is missing.", text(op))
        if op["op"] not in _MEMBERS:
            raise OpError("syntax error", prefix + f'No operation "{op["op"]}"', text(op))
        needs, may = _MEMBERS[op["op"]]
        for member in op.keys() & (needs | may):
            if not _KINDS[member](op[member]):
                raise OpError("syntax error", prefix + f"Type mismatch for member '{member}'.", text(op))
        if "table" in needs and "table" in op and op["table"] not in TABLES:
            raise OpError("syntax error", prefix + f"No table named {op['table']}.", text(op))
        for member in sorted(needs - op.keys()):
            raise OpError("syntax error", prefix + f"Required '{member}' member is missing.", text(op))
        for member in sorted(op.keys() - needs - may - {"op"}):
            raise OpError(
                "syntax error", prefix + f"Member '{member}' is present but not allowed here.", text(op)
            )
        result: Row = getattr(self, op["op"])(op)
        return result

    def finish(self) -> frozenset[tuple[str, str]]:
        """The commit: references, garbage, unique names, versions. Raises OpError, and then nothing happened."""
        if any(TABLES[table].get(name, IDENTITY).atom == "uuid" for table, name in self.touched):
            self.check_references()
            self.collect_garbage()
        if len(self.tables[ROOT]) > 1:
            raise OpError(
                "constraint violation",
                f'transaction causes "{ROOT}" table to contain {len(self.tables[ROOT])} rows, '
                "greater than the schema-defined limit of 1 row(s)",
            )
        for table, column in self.touched:
            if table in NAMED and column == "_row":
                self.check_names(table)
        for table, rows in self.tables.items():
            old = self.before[table]
            for uuid, row in rows.items():
                if row is not old.get(uuid):
                    rows[uuid] = {**row, "_version": self.mint()}
        return frozenset(self.touched)

    def references(self) -> Iterator[tuple[str, str, str, str, str]]:
        for table, rows in self.tables.items():
            for name, column in TABLES[table].items():
                if column.table is not None:
                    for uuid, row in rows.items():
                        for target in value_of(table, row, name):
                            yield table, name, uuid, column.table, target

    def check_references(self) -> None:
        held: dict[tuple[str, str], int] = {}
        for table, name, uuid, to, target in self.references():
            if target in self.tables.get(to, {}):
                continue
            if (to, target) not in self.deleted:
                details = f"Table {table} column {name} row {uuid} references nonexistent row {target} in table {to}."
                raise OpError("referential integrity violation", details)
            held[to, target] = held.get((to, target), 0) + 1
        for table, uuid in self.deleted:
            if (table, uuid) in held:
                details = (
                    f"cannot delete {table} row {uuid} because of {held[table, uuid]} remaining reference(s)"
                )
                raise OpError("referential integrity violation", details)

    def collect_garbage(self) -> None:
        while True:
            kept = {(to, target) for _, _, _, to, target in self.references()}
            lost = [
                (table, uuid) for table in NAMED for uuid in self.tables[table] if (table, uuid) not in kept
            ]
            if not lost:
                return
            for table, uuid in lost:
                del self.tables[table][uuid]
                self.touched[table, "_row"] = None

    def check_names(self, table: str) -> None:
        seen: dict[str, str] = {}
        for uuid, row in self.tables[table].items():
            name = value_of(table, row, "name")
            if name in seen:
                raise self.twice(table, name, *sorted((seen[name], uuid), reverse=True))
            seen[name] = uuid

    def twice(self, table: str, name: str, first: str, second: str) -> OpError:
        def origin(uuid: str) -> str:
            if uuid not in self.before[table]:
                return "was inserted by this transaction"
            if self.before[table][uuid] is self.tables[table][uuid]:
                return (
                    "existed in the database before this transaction and was not modified by the transaction"
                )
            return (
                "had the following index values before the transaction: "
                f"{value_of(table, self.before[table][uuid], 'name')}"
            )

        return OpError(
            "constraint violation",
            f'Transaction causes multiple rows in "{table}" table to have identical values ({name}) for index on '
            f'column "name".  First row, with UUID {first}, {origin(first)}.  '
            f"Second row, with UUID {second}, {origin(second)}.",
        )


def _default(table: str, name: str) -> Any:
    return None if name.startswith("_") else TABLES[table][name].default


def _cell(table: str, uuid: str, row: Row, name: str) -> Any:
    if name == "_uuid":
        return uuid
    return row["_version"] if name == "_version" else value_of(table, row, name)


def _divide(have: int, by: int) -> int:
    """C's division, which rounds towards zero."""
    quotient = abs(have) // abs(by)
    return quotient if (have < 0) == (by < 0) else -quotient


def _remainder(have: int, by: int) -> int:
    return have - by * _divide(have, by)


def _mismatch(column: Column, name: str, operator: str, whole: Any) -> OpError:
    details = f'Type mismatch: "{operator}" operator may not be applied to column {name} of type {column}.'
    return OpError("syntax error", details, text(whole))


def _condition(column: Column, name: str, function: Any, clause: Any) -> Callable[[Any, Any], bool]:
    match function:
        case "==":
            return lambda have, want: bool(have == want)
        case "!=":
            return lambda have, want: bool(have != want)
        case "includes":
            return lambda have, want: _includes(column, have, want)
        case "excludes":
            return lambda have, want: _excludes(column, have, want)
        case "<" | "<=" | ">" | ">=":
            if column.atom != "integer" or column.most != 1:
                raise _mismatch(column, name, function, clause)
            order = _ORDER[function]
            if column.shape == "scalar":
                return order
            return lambda have, want: bool(have) and bool(want) and order(have[0], want[0])
    raise OpError("unknown function", f"No function named {function}.")


def _includes(column: Column, have: Any, want: Any) -> bool:
    if column.shape == "map":
        return all(have.get(key) == value for key, value in want.items())
    return set(want) <= set(have) if column.shape == "set" else bool(have == want)


def _excludes(column: Column, have: Any, want: Any) -> bool:
    if column.shape == "map":
        return all(have.get(key) != value for key, value in want.items())
    return not set(want) & set(have) if column.shape == "set" else bool(have != want)


def _check_size(column: Column, value: Any) -> None:
    if column.shape == "set" and not column.least <= len(value) <= column.most:
        limit = f"{column.least} or more" if column.most > 1 and column.least else f"up to {column.most}"
        details = f"Attempted to store {len(value)} elements in set of {limit} {column.atom}s."
        raise OpError("constraint violation", details)


def empty_tables(root: str) -> Tables:
    """A fresh database: the one row of the root table and nothing else."""
    return {table: ({root: {"_version": root}} if table == ROOT else {}) for table in TABLES}


def execute(tables: Tables, operations: Sequence[Any], mint: Callable[[], str], elapsed: float) -> Outcome:
    """Run `operations`; `elapsed` is how long, in seconds, its `wait`s have been waiting already."""
    work = _Transaction(tables, mint, elapsed)
    results: list[Any] = []
    for nth, operation in enumerate(operations, 1):
        try:
            results.append(work.run(operation, nth, len(operations)))
        except _Blocked as blocked:
            return Outcome([], waits=blocked.left)
        except OpError as error:
            return Outcome([*results, error.body, *[None] * (len(operations) - nth)])
    if not work.touched:
        return Outcome(results)
    try:
        changed = work.finish()
    except OpError as error:
        return Outcome([*results, error.body])
    return Outcome(results, work.tables, changed)
