"""Where a result comes from: sources, settings, versions and the hash of every file."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sot_pipeline import __version__
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.store import Store, file_sha256

SOURCE_KEYS = (
    "path", "sha256", "format", "num_read", "num_rejected", "licence", "files",
)  # fmt: skip


def provenance_manifest(home: Home, task: str, folder: Path, files: list[Path]) -> dict[str, Any]:
    """Everything needed to tell whether a folder of results is what a task produced.

    Args:
        files: The written files, below the folder; their sha256 is of what lies on disk now.
    """
    current = Store(home.store).current_of(task)
    settings, origin = home.settings(task)
    texts = {name: current[f"{name}_texts"] for name in ("custom", "safe", "harmful")}
    return {
        "task": task,
        "version": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "written_by": getpass.getuser(),
        "sources": {
            name: {key: stored.document[key] for key in SOURCE_KEYS}
            for name, stored in texts.items()
        },
        "settings": settings.model_dump(mode="json"),
        "settings_origin": {key: where for key, where in origin.items() if where != "default"},
        "assets": {
            name: {
                key: stored.manifest[key]
                for key in ("fingerprint", "data_version", "code_version", "created", "inputs")
            }
            for name, stored in current.items()
        },
        "libraries": current["purified_export"].manifest["libraries"],
        "files": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
    }
