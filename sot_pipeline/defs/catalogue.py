"""`pipeline.duckdb`: every current table by its asset's name, for SQL. Disposable."""

import uuid
from pathlib import Path

import duckdb

from sot_pipeline.defs.store import Store
from sot_pipeline.durable import locked, to_disk

Table = tuple[str, Path]  # task, file
# In quotes below: a type that a function refers to outlives the interpreter, and duckdb says so


def refresh_catalogue(store: Store) -> None:
    """Rebuild the catalogue if it does not show what is current, whoever left it so."""
    path = store.root / "pipeline.duckdb"
    if store.catalogue_mark.exists() or not path.exists():
        with _alone(store):
            # whoever waited finds the work done by the one before
            if store.catalogue_mark.exists() or not path.exists():
                _rebuild(store, path)


def rebuild_catalogue(store: Store) -> Path:
    """Write `pipeline.duckdb`: one view per table asset over its current versions.

    The tasks' tables are stacked with a first column `task`. The file is replaced in one
    rename, so a reader keeps its snapshot and never blocks a run. A table that cannot be read
    is left out.
    """
    with _alone(store):
        return _rebuild(store, store.root / "pipeline.duckdb")


def _alone(store: Store):
    return locked(store.root / "pipeline.lock")


def _rebuild(store: Store, path: Path) -> Path:
    for leftover in store.root.glob("pipeline.*.tmp*"):  # of a killed attempt, with its log
        leftover.unlink(missing_ok=True)
    tables: dict[str, list[Table]] = {}
    for task in store.tasks():
        for name, stored in store.current_of(task).items():
            if stored.table_path.exists():
                tables.setdefault(name, []).append((task, stored.table_path))
    temporary = store.root / f"pipeline.{uuid.uuid4().hex}.tmp"
    with duckdb.connect(str(temporary)) as connection:
        for name, versions in sorted(tables.items()):
            _create_view(connection, name, versions)
    to_disk(temporary)
    temporary.replace(path)
    store.catalogue_mark.unlink(missing_ok=True)
    return path


def _create_view(connection: "duckdb.DuckDBPyConnection", name: str, tables: list[Table]) -> None:
    try:
        connection.execute(_view(name, tables))
    except duckdb.Error:  # one damaged file must not hide the other tasks' tables
        readable = [table for table in tables if _is_readable(connection, table)]
        if readable == tables:
            raise
        if readable:
            connection.execute(_view(name, readable))


def _view(name: str, tables: list[Table]) -> str:
    parts = [f"select {_quoted(task)} as task, * exclude (row_order) from {_read(file)}"
             for task, file in tables]  # fmt: skip
    return f"create view {name} as {' union all by name '.join(parts)}"


def _is_readable(connection: "duckdb.DuckDBPyConnection", table: Table) -> bool:
    try:
        connection.execute(f"from {_read(table[1])} limit 0")
    except duckdb.Error:
        return False
    return True


def _read(file: Path) -> str:
    return f"read_duckdb({_quoted(str(file))}, table_name = 't')"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
