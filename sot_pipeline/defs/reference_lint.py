"""Lint the references of a purified task, or of plain files."""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.costs import saved_center
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.scoring import purified_assets
from sot_pipeline.defs.sources import fetching_progress
from sot_pipeline.defs.store import Stored
from sot_pipeline.progress import reporter
from sot_pipeline.references.findings import ROW_SCHEMA, Finding, TextSet, finding
from sot_pipeline.references.lint import Lint, lint

ROLES = ("custom", "safe", "harmful")
_NEEDED = (*(f"{role}_{kind}" for role in ROLES for kind in ("texts", "embeddings")), "pull_cost")


class LintReport(NamedTuple):
    """Findings, the gravest first; `rows` holds the rows of all of them (`ROW_SCHEMA`)."""

    lint: Lint
    num_rows: dict[str, int]  # by text set
    rows: pl.DataFrame


def lint_task(home: Home, task: str) -> LintReport:
    """Lint a task's references on its stored texts and vectors; nothing is embedded.

    Raises:
        InputError: no such task, or it has not been purified.
    """
    assets = purified_assets(home, task, _NEEDED)
    sets = {role: _stored_set(assets, role) for role in ROLES}
    unreadable = [
        each
        for role in ("safe", "harmful")
        for each in _unreadable(sets[role], _rejected(assets[f"{role}_texts"]))
    ]
    prompts = _evaluation_prompts(home.read_task(task))
    return _report(sets, unreadable, prompts, saved_center(assets["pull_cost"]))


def lint_files(
    home: Home,
    *,
    safe: Sequence[str],
    harmful: Sequence[str],
    custom: Sequence[str] = (),
    embedder: str = "minilm",
) -> LintReport:
    """Lint references that belong to no task yet; vectors are kept where the project has a store.

    Raises:
        InputError: a file cannot be read, naming file and line, or the encoder cannot be loaded.
    """
    from sot_pipeline.embedding.load import load_encoder
    from sot_pipeline.embedding.views import embed_rows, view_for
    from sot_pipeline.transport.cost import pooled_mean

    sources = {"custom": custom, "safe": safe, "harmful": harmful}
    read = {role: _read(home, names) for role, names in sources.items() if names}
    encoder = load_encoder(embedder)
    sets: dict[str, TextSet] = {}
    unreadable: list[Finding] = []
    for role, (rows, rejected) in read.items():
        vectors = embed_rows(
            [json.loads(messages) for messages in rows["messages"]],
            encoder,
            view=view_for(encoder, "auto"),
            cache=home.store / "rows" if home.store.exists() else None,
            progress=reporter(f"embedding {role} rows", "tokens", lambda line: None),
        ).vectors
        sets[role] = TextSet(role, rows, vectors)
        if role != "custom":
            unreadable += _unreadable(sets[role], rejected)
    return _report(sets, unreadable, [], pooled_mean(sets["safe"].vectors))


def _report(
    sets: dict[str, TextSet],
    unreadable: list[Finding],
    prompts: list[TextSet],
    center: np.ndarray | None,
) -> LintReport:
    custom, safe, harmful = (sets.get(role) for role in ROLES)
    assert safe is not None
    assert harmful is not None
    found = lint(safe, harmful, custom, evaluation=prompts)
    more = [*unreadable, *(_fit(custom, safe, harmful, center) if custom is not None else ())]
    findings = sorted(
        [*found.findings, *more],
        key=lambda each: ("error", "warning", "note").index(each.severity),
    )
    tables = [each.rows for each in findings]
    return LintReport(
        found._replace(findings=findings),
        {role: each.num_rows for role, each in sets.items()},
        pl.concat(tables) if tables else pl.DataFrame(schema=ROW_SCHEMA),
    )


def _fit(
    custom: TextSet, safe: TextSet, harmful: TextSet, center: np.ndarray | None
) -> Iterator[Finding]:
    """What the checks of a solve say of the references, before there is one."""
    from sot_pipeline.transport.diagnostics import anchor_match, reference_coverage

    match = anchor_match(custom.vectors, safe.vectors, center=center)
    if match.matched is False:
        yield finding(
            "another_task", "error", safe, [],
            f"safe and custom rows do not mix ({match.mixing:.2f}, {match.threshold} is the least)",
            "take trusted rows of the custom set's own task",
        )._replace(num_rows=safe.num_rows, share=1.0)  # fmt: skip
    coverage = reference_coverage(custom.vectors, safe.vectors, harmful.vectors, center=center)
    rows = np.flatnonzero(coverage.uncovered)
    if len(rows):
        yield finding(
            "far_from_both", "note" if coverage.covered else "warning", custom, rows,
            f"{coverage.uncovered_share:.1%} of the custom rows are far from both references",
            "nothing judges them: add safe rows like them, or `sot references propose`",
        )  # fmt: skip


def _stored_set(assets: dict[str, Stored], role: str) -> TextSet:
    texts = assets[f"{role}_texts"]
    name = texts.document["files"][0]["name"]  # tables of one file leave it out
    table = texts.table().with_columns(pl.col("file").fill_null(name))
    return TextSet(role, table, np.asarray(assets[f"{role}_embeddings"].array()))


def _rejected(texts: Stored) -> pl.DataFrame:
    return pl.read_parquet(texts.directory / "rejected.parquet")


def _read(
    home: Home, sources: Sequence[str], *, require_response: bool = True
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows and rejected rows."""
    from sot_pipeline.texts.fetch import input_files
    from sot_pipeline.texts.read import read_text_files

    found = input_files(sources, home.fetched, licences={}, progress=fetching_progress)
    texts = read_text_files(
        {file.name: file.path for file in found}, require_response=require_response
    )
    return texts.rows, texts.rejected


def _evaluation_prompts(task: TaskFile) -> list[TextSet]:
    sets = []
    for name, path in task.evaluation.model_dump().items():
        if path is not None:
            rows, _ = _read(task.home, [str(path)], require_response=False)
            vectors = np.zeros((rows.height, 0), dtype=np.float32)
            sets.append(TextSet(f"evaluation.{name}", rows, vectors))
    return sets


def _unreadable(of: TextSet, rejected: pl.DataFrame) -> list[Finding]:
    if rejected.is_empty():
        return []
    reasons = ", ".join(rejected["reason"].unique().sort())
    none = finding("unreadable_rows", "warning", of, [], f"rows that were left out: {reasons}",
                   "mend the lines, or remove them")  # fmt: skip
    rows = rejected.select("file", "line").with_columns(
        finding=pl.lit(none.name), severity=pl.lit(none.severity), text_set=pl.lit(of.name)
    )
    rows = pl.concat([none.rows, rows], how="diagonal")
    share = rejected.height / (rejected.height + of.num_rows)
    return [none._replace(rows=rows, num_rows=rejected.height, share=share)]
