"""`sot verify`: whether a folder of results is what was written."""

from pathlib import Path

from sot_pipeline.cli.output import DONE, FINDINGS, print_json, say
from sot_pipeline.defs.home import Home

_SHOWN = 50


def run_verify(
    root: Path | None,
    folder: Path,
    inputs: bool,
    store: bool,
    expect: str | None,
    as_json: bool,
) -> int:
    from sot_pipeline.defs.verification import verify_folder

    verdict = verify_folder(
        folder, home=Home(root) if store else None, require_inputs=inputs, expected_hash=expect
    )
    if as_json:
        print_json(verdict.as_document())
    else:
        for problem in verdict.problems[:_SHOWN]:
            print(f"{problem.kind}: {problem.sentence}")
        if len(verdict.problems) > _SHOWN:
            print(f"... and {len(verdict.problems) - _SHOWN:,} more")
        say(f"checked {verdict.checked}")
        say(f"provenance.json has sha256 {verdict.manifest_hash}")
        say("all is well" if not verdict.problems else f"{len(verdict.problems):,} differences")
    return FINDINGS if verdict.problems else DONE


def print_schema() -> int:
    from sot_pipeline.publishing.provenance import json_schema

    print_json(json_schema())
    return DONE
