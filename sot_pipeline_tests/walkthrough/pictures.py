"""The pictures of README: `python -m sot_pipeline_tests.walkthrough.pictures`.

They show a finished demo: the lineage of the main path, the page of an asset with a plot and its
checks, and the HTML report. `--home` names a demo's home, which is copied; `sot demo` brings the
copy up to date, or makes one. On two cores: about a minute where nothing is to be computed, five
minutes for a new demo.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from sot_pipeline.defs.home import Home
from sot_pipeline.defs.pages import MAIN_PATH
from sot_pipeline.defs.report_links import newest_report
from sot_pipeline_tests.defs.live import SOT, ui
from sot_pipeline_tests.walkthrough.browser import Browser, chromium

TASK = "demo"
WIDTH = 1400  # pixels of each picture
MAX_BYTES = 200_000
NUM_COLOURS = 256


def make_pictures(home: Path, out: Path) -> list[Path]:
    """The pictures of a demo's home that is up to date."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory(prefix="sot-pictures-") as folder, ui(Home(home)) as live:
        address = f"http://127.0.0.1:{live.port}"
        for take, size in (
            (main_path, (2000, 1150)),
            (asset_with_plot, (WIDTH, 1000)),
            (report, (WIDTH, 1500)),
        ):
            with chromium(address, Path(folder), size) as browser:
                name = take.__name__.replace("_", "-")
                made.append(compressed(take(browser, Home(home)), out / f"{name}.png"))
    return made


def main_path(browser: Browser, home: Home) -> Path:
    browser.open(MAIN_PATH)
    browser.shows("Materialize all", "inputs", "transport", "purified", "adapter")
    browser.expand_all_groups()
    browser.shows("custom_texts", "sample_weights", "selected_samples", "evaluation")
    return browser.picture("main-path")


def asset_with_plot(browser: Browser, home: Home) -> Path:
    browser.open(f"/assets/sample_weights?view=partitions&partition={TASK}")
    browser.shows("Latest materialization", "weight_histogram", "effective_sample_size")
    browser.click("//tr[contains(., 'weight_histogram')]//*[contains(text(), 'Show Markdown')]")
    browser.find("//img[contains(@src, 'data:image/png')]")
    return browser.picture("asset-with-plot")


def report(browser: Browser, home: Home) -> Path:
    link = newest_report(home, TASK)
    assert link is not None, f"no report of task {TASK} in {home.root}"
    browser.open(link)
    browser.find("//h1")
    return browser.picture("report")


def compressed(picture: Path, out: Path) -> Path:
    """A PNG of `WIDTH` pixels with few colours, small enough for a repository."""
    with Image.open(picture) as image:
        height = round(image.height * WIDTH / image.width)
        small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
    colours = NUM_COLOURS
    while True:
        buffer = io.BytesIO()
        small.quantize(colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES or colours <= 8:
            break
        colours //= 2
    out.write_bytes(buffer.getvalue())
    return out


def copied(home: Path | None, folder: Path) -> Path:
    """A demo's home below `folder`, up to date: a copy of one, or a new one."""
    target = folder / "data"
    if home is not None:
        shutil.copytree(home, target)
    subprocess.run([SOT, "demo", "--home", target], check=True)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sot_pipeline_tests.walkthrough.pictures")
    parser.add_argument("--home", type=Path, help="a demo's home; it is copied, not changed")
    parser.add_argument("--out", type=Path, default=Path("data/pictures"))
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sot-demo-") as folder:
        for path in make_pictures(copied(arguments.home, Path(folder)), arguments.out):
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
