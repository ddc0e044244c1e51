"""Report data for tests: small, seeded, with known numbers."""

import io
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.report.data import FitSummary, InputSet, ReportCheck, ReportData
from sot_pipeline.report.embedding_map import embedding_map

SCORES: tuple[str, ...] = (
    "harmfulness_score",
    "helpfulness_score",
    "accuracy",
    "over_refusal",
    "average",
)


def ledger(num_rows: int = 40, keep: int = 30, **columns: Any) -> pl.DataFrame:
    """Row i has the i-th highest weight; the first `keep` rows stay."""
    log_weights = -0.1 * np.arange(num_rows)
    return pl.DataFrame(
        {
            "sample_id": [f"{i:016x}-0" for i in range(num_rows)],
            "source_id": [f"row-{i}" for i in range(num_rows)],
            "line": np.arange(1, num_rows + 1),
            "kept": np.arange(num_rows) < keep,
            "rank": np.arange(1, num_rows + 1),
            "log_weight": log_weights,
            "nearest_safe": ["safe-1"] * num_rows,
            "safe_similarity": [0.5] * num_rows,
            "nearest_harmful": ["harm-1"] * num_rows,
            "harmful_similarity": np.where(np.arange(num_rows) < keep, 0.1, 0.9),
            "reason": [f"reason of row {i}" for i in range(num_rows)],
            "prompt": [f"prompt of row {i}" for i in range(num_rows)],
            "response": [f"response of row {i}" for i in range(num_rows)],
            **columns,
        }
    )


def evaluation(
    values: Mapping[str, Mapping[str, float]], *, seeds: int = 1, half: float = 0.02
) -> pl.DataFrame:
    """Long frame of scores; seed s is 0.01 s above the given value."""
    return pl.DataFrame(
        [
            {
                "method": method,
                "seed": seed,
                "score": score,
                "value": value + 0.01 * seed,
                "low": value + 0.01 * seed - half,
                "high": value + 0.01 * seed + half,
                "num_judged": 100,
                "num_missing": 1,
            }
            for method, scores in values.items()
            for score, value in scores.items()
            for seed in range(1 if method == "base" else seeds)
        ]
    )


METHOD_SCORES: dict[str, dict[str, float]] = {
    "sot": dict(zip(SCORES, (0.1, 0.71, 0.45, 0.05, 0.687), strict=True)),
    "sft": dict(zip(SCORES, (0.4, 0.70, 0.44, 0.02, 0.580), strict=True)),
    "random": dict(zip(SCORES, (0.38, 0.69, 0.43, 0.03, 0.580), strict=True)),
    "sft_clean": dict(zip(SCORES, (0.05, 0.75, 0.48, 0.06, 0.727), strict=True)),
    "base": dict(zip(SCORES, (0.02, 0.6, 0.1, 0.04, 0.56), strict=True)),
}


def points(num_rows: int = 40):
    rng = np.random.default_rng(0)
    return embedding_map(
        *(rng.normal(size=(n, 8)) + shift for n, shift in ((num_rows, 0.0), (12, 1.0), (9, -1.0)))
    )


def report_data(**changes: Any) -> ReportData:
    table = changes.pop("ledger", ledger())
    options: dict[str, Any] = {
        "task": "alpaca",
        "created": "2026-11-22 05:10",
        "inputs": (
            InputSet("custom", "custom.jsonl", len(table), 2, "openai", "a" * 64),
            InputSet("safe", "safe.parquet", 12, 0, "alpaca", "b" * 64),
            InputSet("harmful", "harmful.parquet", 9, 0, "alpaca", "c" * 64),
        ),
        "embedder": "minilm",
        "ledger": table,
        "fit": FitSummary(np.array([0.5, 0.4, 0.35]), True, 3, 0.1, 0.5),
        "settings": {"selection.keep_fraction": 0.75},
        "fingerprints": {"adapter": "f00d"},
        "points": points(len(table)),
        "neighbours": points(len(table)),
        "evaluation": evaluation(METHOD_SCORES, seeds=3),
        "judge": "exact judge, prompt 12ab",
        "checks": (ReportCheck("fit_converged", "passed", "residual 1e-4"),),
        "rejected": pl.DataFrame(
            {
                "text_set": ["custom", "custom"],
                "line": [3, 9],
                "reason": ["broken_json", "broken_json"],
                "detail": ["Expecting value", "Expecting value"],
            }
        ),
    }
    return ReportData(**(options | changes))


def without_drawing(monkeypatch) -> None:
    """Every figure becomes two pixels: for tests that are not about figures."""
    from PIL import Image

    from sot_pipeline.report import figures

    png = io.BytesIO()
    Image.new("RGB", (2, 2)).save(png, format="PNG")
    for name in figures.__all__:
        if not name.endswith("_png"):
            continue
        monkeypatch.setattr(figures, name, lambda *args, **options: png.getvalue())


class Page(HTMLParser):
    """A parsed report: its tags with attributes, and the text in each of some tags."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text_of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    @property
    def text(self) -> str:
        """What a reader sees: no style, no script, white space as one blank."""
        seen = "".join(text for tag, text in self.texts if tag not in ("style", "script"))
        return " ".join(seen.split())
