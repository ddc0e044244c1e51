"""`python -m sot_pipeline_tests.walkthrough --out FOLDER`: walk through the UI, keep pictures."""

import argparse
import tempfile
import time
from pathlib import Path

from sot_pipeline_tests.walkthrough.walk import walk

parser = argparse.ArgumentParser(prog="python -m sot_pipeline_tests.walkthrough")
parser.add_argument("--out", type=Path, default=Path("artefacts/walkthrough"), help="pictures")
arguments = parser.parse_args()
begun = time.monotonic()
with tempfile.TemporaryDirectory(prefix="sot-walk-") as work:
    pictures = walk(arguments.out, Path(work), lambda line: print(line, flush=True))
print(f"{len(pictures)} pictures in {arguments.out}, {time.monotonic() - begun:.0f} s")
