"""`sot gc`: give back the space of what nothing needs any more."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from sot_pipeline.cli.output import DONE, print_json, say, table
from sot_pipeline.defs.home import Home
from sot_pipeline.errors import storage_errors

CACHES = {"rows": "embedded rows", "fetched": "fetched references"}  # kept: they save work


def run_gc(root: Path | None, *, keep_versions: int, dry_run: bool, as_json: bool) -> int:
    from sot_pipeline.defs.catalogue import refresh_catalogue
    from sot_pipeline.defs.retention import collect, folder_size
    from sot_pipeline.defs.store import Store

    home = Home(root)
    store = Store(home.store)
    with storage_errors(home.store):
        collected = collect(store, keep_versions=keep_versions, dry_run=dry_run)
        if store.root.is_dir() and not dry_run:
            refresh_catalogue(store)
    document = {
        "store": str(store.root),
        "dry_run": dry_run,
        "keep_versions": keep_versions,
        "removed": [vars(removed) for removed in collected.removed],
        "bytes_freed": collected.num_bytes,
        "artefacts_kept": collected.num_kept,
        "bytes_kept": collected.bytes_kept,
        "caches_kept": {name: folder_size(store.root / name) for name in CACHES},
        "not_understood": collected.not_understood,
    }
    if as_json:
        print_json(document)
    else:
        _print(document)
    return DONE


def _print(document: dict[str, Any]) -> None:
    removed = document["removed"]
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for entry in removed:
        asset = entry["path"].split("/")[0] if entry["kind"] == "artefact" else ""
        groups[entry["kind"], asset].append(entry["num_bytes"])
    if groups:
        rows = [
            [kind, asset, f"{len(sizes):,}", f"{sum(sizes) / 1e6:,.1f}"]
            for (kind, asset), sizes in sorted(groups.items())
        ]
        table("", ["what", "asset", "number", "MB"], rows)
    verb = "would be freed" if document["dry_run"] else "freed"
    caches = ", ".join(
        f"{size / 1e6:,.1f} MB of {CACHES[name]}"
        for name, size in document["caches_kept"].items()
        if size
    )
    say(
        f"{document['bytes_freed'] / 1e6:,.1f} MB {verb}; kept {document['artefacts_kept']:,} "
        f"artefacts, {document['bytes_kept'] / 1e6:,.1f} MB" + (f", and {caches}" if caches else "")
    )
    for path in document["not_understood"]:
        say(f"left alone, no readable artefact: {path}")
