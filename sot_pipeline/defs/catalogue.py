"""`pipeline.duckdb`: every current table by its asset's name, for SQL. Disposable."""

import uuid
from pathlib import Path

import duckdb

from sot_pipeline.defs.store import Store, locked


def rebuild_catalogue(store: Store) -> Path:
    """Write `pipeline.duckdb`: one view per table asset over its current versions.

    The tasks' tables are stacked with a first column `task`. The file is replaced in one
    rename, so a reader keeps its snapshot and never blocks a run.
    """
    # one at a time: whoever comes last has seen every version that was current before
    with locked(store.root / "pipeline.lock"):
        return _rebuild(store)


def _rebuild(store: Store) -> Path:
    tables: dict[str, list[tuple[str, Path]]] = {}
    for task in store.tasks():
        for name, stored in store.current_of(task).items():
            if stored.table_path.exists():
                tables.setdefault(name, []).append((task, stored.table_path))
    path = store.root / "pipeline.duckdb"
    temporary = store.root / f"pipeline.{uuid.uuid4().hex}.tmp"
    with duckdb.connect(str(temporary)) as connection:
        for name, versions in sorted(tables.items()):
            parts = [
                f"select {_quoted(task)} as task, * exclude (row_order) "
                f"from read_duckdb({_quoted(str(file))}, table_name = 't')"
                for task, file in versions
            ]
            view = " union all by name ".join(parts)
            connection.execute(f"create view {name} as {view}")
    temporary.replace(path)
    return path


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
