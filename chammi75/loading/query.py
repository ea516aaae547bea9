"""SQL over the records, in a DuckDB that can reach nothing else.

No file, no network, no extension, no Python variable can be named in it: external access is switched off and the
configuration locked before a word of the user's SQL is seen. The one file that stays readable is the index that is
queried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import FilterError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_ROW = "row_number_in_index"


@contextmanager
def records_database(records: str | pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """A locked-down DuckDB whose one table is ``records``.

    Parameters
    ----------
    records : str or pyarrow.Table
        Path of a local ``index.parquet``, or the records themselves.
    """
    import duckdb

    with duckdb.connect(":memory:") as connection:
        if isinstance(records, str):
            path = records.replace("'", "''")
            connection.execute(f"SET allowed_paths = ['{path}']")
        else:
            import pyarrow as pa

            table = records.append_column(_ROW, pa.array(np.arange(records.num_rows)))
            connection.register("records", table)
        for setting in ("temp_directory = ''", "allow_persistent_secrets = false", "enable_external_access = false"):
            connection.execute(f"SET {setting}")
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET lock_configuration = true")
        if isinstance(records, str):
            connection.execute(
                f"CREATE VIEW records AS SELECT * RENAME (file_row_number AS {_ROW})"
                f" FROM read_parquet('{path}', file_row_number = true)"
            )
        yield connection


def rows_where(records: str | pa.Table, where: str) -> NDArray[np.int64]:
    """Rows for which an SQL condition is true, ascending.

    Parameters
    ----------
    records : str or pyarrow.Table
        As for ``records_database``.
    where : str
        A condition over the record (``quality.focus > 0.3 AND experiment.plate LIKE 'P1%'``).

    Raises
    ------
    FilterError
        If it is no condition, names an unknown column, or one that is null for every image; or reaches for anything
        beside the records.
    """
    import duckdb

    if not isinstance(where, str) or not where.strip():
        raise FilterError(f"where must be an SQL condition over the record, not {where!r}")
    query = f"SELECT {_ROW} FROM records WHERE (\n{where}\n) ORDER BY {_ROW}"
    with records_database(records) as connection:
        try:
            paths = _columns_of(connection, where)
            rows = connection.execute(query).fetchnumpy()[_ROW]
            for path in paths:
                _check_not_null_throughout(connection, path)
        except duckdb.Error as error:
            raise FilterError(_plain(where, str(error), connection)) from error
    return np.asarray(rows, np.int64)


def _columns_of(connection: duckdb.DuckDBPyConnection, where: str) -> list[tuple[str, ...]]:
    """Columns that a condition refers to, as paths.

    Raises
    ------
    FilterError
        If it is not one condition, but closes the bracket it stands in and goes on with something else.
    """
    answer = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT (\n{where}\n)"]).fetchone()
    tree: dict[str, Any] = json.loads(answer[0]) if answer else {"error": True}
    if tree.get("error"):
        raise FilterError(
            f"where is not an SQL condition: {tree.get('error_message', 'it cannot be read')} ({where!r})"
        )
    statements = tree["statements"]
    node = statements[0]["node"]
    alone = len(statements) == 1 and node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1
    if not alone or node["from_table"]["type"] != "EMPTY" or any(node[clause] for clause in _FURTHER_CLAUSES):
        raise FilterError(f"where is refused: it must be one condition and nothing after it ({where!r})")
    paths = set(_references(node["select_list"][0]))
    return sorted(path[1:] if path[0] == "records" else path for path in paths)


_FURTHER_CLAUSES = (
    "modifiers",
    "where_clause",
    "group_expressions",
    "group_sets",
    "having",
    "sample",
    "qualify",
)


def _references(node: Any) -> Iterator[tuple[str, ...]]:
    """Columns and fields of them, however they are written: ``quality.focus``, ``quality['focus']``."""
    if isinstance(node, dict):
        path = _path(node)
        if path is not None:
            yield path
            return
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _path(node: dict[str, Any]) -> tuple[str, ...] | None:
    if node.get("class") == "COLUMN_REF":
        return tuple(node["column_names"])
    if node.get("type") in ("ARRAY_EXTRACT", "STRUCT_EXTRACT"):
        outer, key = node["children"]
        path, name = _path(outer), _text(key)
        return (*path, name) if path is not None and name is not None else None
    return None


def _text(node: dict[str, Any]) -> str | None:
    """The text of a constant in the serialised query; None if it is none."""
    literal = node.get("literal") or node.get("value") or {}  # DuckDB before 2.0 writes the value otherwise
    text = literal.get("text", literal.get("value")) if isinstance(literal, dict) else None
    return text if isinstance(text, str) and not text.isdigit() else None


def _check_not_null_throughout(connection: duckdb.DuckDBPyConnection, path: tuple[str, ...]) -> None:
    import duckdb

    name = ".".join(path)
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in path)
    try:
        answer = connection.execute(f"SELECT count({quoted}), count(*) FROM records").fetchone()
    except duckdb.BinderException:
        return  # a variable of a lambda, or a column of a subquery
    if answer is not None and answer[0] == 0 and answer[1]:
        raise FilterError(
            f"{name} is unknown for every image here (it was never computed or stated): nothing can be filtered by it"
        )


def _plain(where: str, message: str, connection: duckdb.DuckDBPyConnection) -> str:
    first = message.split("\n", 1)[0]
    if message.startswith("Permission Error"):
        return f"where is refused: it may use the record's columns and nothing else ({where!r})"
    words = first.split('"')
    missing = message.startswith("Binder Error") and ("not found" in first or "Could not find" in first)
    if not missing or len(words) < 3:
        return f"where cannot be used: {first}"
    columns = [row[0] for row in connection.execute("SELECT column_name FROM (DESCRIBE records)").fetchall()]
    columns.remove(_ROW)
    leaves: dict[str, list[str]] = {}
    for path in dict.fromkeys([*columns, *record_paths()]):
        leaves.setdefault(path.rpartition(".")[2], []).append(path)
    asked = words[1].lower()
    near = leaves.get(asked) or [path for leaf in get_close_matches(asked, leaves, 2, 0.6) for path in leaves[leaf]]
    hint = f"did you mean {' or '.join(near)}?" if near else f"the record has {', '.join(columns)}"
    return f"where cannot be used: {first}; {hint}"


def record_paths() -> list[str]:
    """Dotted paths of all columns of the record (``biology.organism``)."""
    from chammi75.schemas.arrow import record_schema

    return list(_paths(record_schema()))


def _paths(fields: Any, prefix: str = "") -> Iterator[str]:
    import pyarrow as pa

    for field in fields:
        yield prefix + field.name
        if pa.types.is_struct(field.type):
            yield from _paths(field.type, f"{prefix}{field.name}.")
