"""The command line `sot`: drives the asset graph and prints what it did.

stdout carries the result (with `--json` one JSON document and nothing else), stderr the
progress. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with findings (rejected rows,
failed checks).
"""


def main() -> None:
    """Entry point of the `sot` script."""
    from sot_pipeline.cli.app import run

    run()
