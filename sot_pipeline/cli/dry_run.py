"""`--dry-run`: what a command would compute and what that takes; nothing is written."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sot_pipeline.cli.output import DONE, FINDINGS, print_json, say, table
from sot_pipeline.defs.home import Home

if TYPE_CHECKING:  # these import polars
    from sot_pipeline.defs.dry_run import DryStage
    from sot_pipeline.defs.hardware import Device


def run_dry(home: Home, name: str, job: str, device: str, as_json: bool) -> int:
    """Show the estimate of a job; exit code 3 where a part of it does not fit into memory.

    Args:
        home: As `PlannedHome`: it holds the task as the command's flags would make it.
        device: cpu (this machine) or the name of a GPU.
    """
    from sot_pipeline.definitions import JOBS, PIPELINE
    from sot_pipeline.defs.dry_run import stages_of
    from sot_pipeline.defs.hardware import device as find_device

    chosen = find_device(device)
    assets = [asset for asset in PIPELINE if asset.name in JOBS[job]]
    stages = stages_of(home, name, assets, chosen)
    document = dry_run_document(name, stages, chosen)
    if as_json:
        print_json(document)
    else:
        _print(document)
    return DONE if document["fits"] else FINDINGS


def dry_run_document(name: str, stages: "Iterable[DryStage]", device: "Device") -> dict[str, Any]:
    """The estimate as plain values: seconds as [low, high], memory and disk in bytes."""
    rows = [
        {
            "asset": stage.asset,
            "state": stage.state,
            "because": list(stage.because),
            **(
                {}
                if stage.estimate is None
                else {
                    "seconds": list(stage.estimate.seconds),
                    "memory": stage.estimate.memory,
                    "disk": stage.estimate.disk,
                    "fits": stage.estimate.memory <= device.memory,
                    "basis": stage.estimate.basis,
                }
            ),
        }
        for stage in stages
    ]
    counted = [row for row in rows if "seconds" in row]
    return {
        "task": name,
        "dry_run": True,
        "device": device.name,
        "device_memory": device.memory,
        "stages": rows,
        "seconds": [sum(row["seconds"][end] for row in counted) for end in (0, 1)],
        "memory": max((row["memory"] for row in counted), default=0),
        "disk": sum(row["disk"] for row in counted),
        "fits": all(row["fits"] for row in counted),
    }


def _print(document: dict[str, Any]) -> None:
    from sot_pipeline.cli.amounts import minutes_between, size

    counted = [row for row in document["stages"] if "seconds" in row]
    rows = [
        [
            row["asset"], minutes_between(row["seconds"]),
            size(row["memory"]) + ("" if row["fits"] else " (does not fit)"), size(row["disk"]),
            row["basis"],
        ]
        for row in counted
    ]  # fmt: skip
    small = [row for row in document["stages"] if row["state"] != "current" and row not in counted]
    cached = sum(row["state"] == "current" for row in document["stages"])
    rows.append(
        ["together", minutes_between(document["seconds"]), size(document["memory"]),
         size(document["disk"]), f"and {len(small)} small steps, not estimated"]
    )  # fmt: skip
    done = f"{cached} of {len(document['stages'])} assets are cached"
    if not counted:
        say(f"{done}, {len(small)} small ones are not; nothing was computed or written")
        return
    table(
        f"{document['task']} on {document['device']}, {size(document['device_memory'])}",
        ["asset", "time", "peak memory", "disk", "of"],
        rows,
        note="Estimates; rows that were embedded before take no time again.",
    )
    say(f"{done}; nothing was computed or written")
