"""Findings about two reference sets: what is wrong with which rows, and what to do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sot_pipeline.references.cleaning import Cleaning, clean
from sot_pipeline.references.composition import (
    cluster_shares,
    densest_topic,
    latin_share,
    median_length,
)
from sot_pipeline.references.directions import unit_rows
from sot_pipeline.references.duplicates import NEAR_DUPLICATE, Pairs, equal_rows, near_rows
from sot_pipeline.references.findings import Finding, Severity, TextSet, check_sets, finding
from sot_pipeline.references.label_noise import FlipRate

# Thresholds, with what real sets without the fault show (three tasks; benchmarks/REFERENCES.md)
FEW_ROWS = 50  # below, the checks on a solve overlap for good and bad references
MOST_FLIPS = 0.02  # lower limit; 0.000
MANY_FLIPS = 0.2
NUM_NEIGHBOURS = 10  # all of them harmful: 0.06-0.12 % of safe rows; of 5: 0.4-0.8 %
MOST_INSIDE = 0.01
MOST_COPIES = 0.05
LARGEST_TOPIC = 0.25  # see `densest_topic`
FEWEST_FOR_TOPIC = 120  # rows: what it was measured on; few rows are about few things by themselves
LEAST_CLUSTER = 0.03  # share of the custom rows; of the reference's, less than a tenth of that
LONGER, LATIN_SHIFT = 3.0, 0.2
_CHUNK = 1_024  # rows whose cosines to a whole set are held at once


class Lint(NamedTuple):
    """All findings, the gravest first, and the estimates behind them."""

    findings: list[Finding]
    flips: Mapping[str, FlipRate]  # by reference; empty where there are too few rows

    @property
    def is_clean(self) -> bool:
        return all(finding.severity == "note" for finding in self.findings)


def lint(
    safe: TextSet,
    harmful: TextSet,
    custom: TextSet | None = None,
    *,
    evaluation: Sequence[TextSet] = (),
    seed: int = 0,
) -> Lint:
    """Look for faults of two references by themselves, and against a custom set.

    Args:
        safe, harmful, custom: With vectors of one encoder.
        evaluation: Prompt sets; their vectors are not looked at.

    Raises:
        InputError: a set without rows, vectors that do not fit.
    """
    references = (safe, harmful)
    check_sets([*references, *([custom] if custom else [])])
    cleaning = clean(safe.vectors, harmful.vectors, seed=seed)
    found = [
        *_too_few(references),
        *_label_noise(references, cleaning),
        *_overlap(safe, harmful),
        *(finding for each in references for finding in _copies(each)),
        *_narrow(harmful),
    ]
    if custom is not None:
        found += [finding for each in references for finding in _leakage(each, custom)]
        found += [*_composition(safe, harmful, custom), *_form(safe, custom)]
    found += [f for each in references for other in evaluation for f in _asked(each, other)]
    found.sort(key=lambda finding: ("error", "warning", "note").index(finding.severity))
    flips: dict[str, FlipRate] = {}
    if cleaning.flips is not None:
        flips["safe"], flips["harmful"] = cleaning.flips
    return Lint(found, flips)


def _too_few(references: Sequence[TextSet]) -> Iterator[Finding]:
    for each in references:
        if each.num_rows < FEW_ROWS:
            yield finding(
                "too_few_rows", "error" if each.num_rows < 10 else "warning", each, [],
                f"{each.num_rows} rows", f"give at least {FEW_ROWS}; hundreds are better",
            )._replace(num_rows=each.num_rows, share=1.0)  # fmt: skip


def _label_noise(references: Sequence[TextSet], cleaning: Cleaning) -> Iterator[Finding]:
    if cleaning.flips is None:
        return
    for each, flips in zip(references, cleaning.flips, strict=True):
        rows = flips.suspicious
        if not len(rows):
            continue
        faulty = flips.low > MOST_FLIPS
        grave = faulty and flips.rate > MANY_FLIPS
        yield finding(
            "flipped_labels", "error" if grave else "warning" if faulty else "note", each, rows,
            f"about {flips.rate:.1%} of the rows look mislabelled "
            f"({flips.low:.1%} to {flips.high:.1%})",
            "read these rows, the most suspicious come first; drop or move those that are wrong",
            scores=flips.probability[rows],
        )  # fmt: skip


def _overlap(safe: TextSet, harmful: TextSet) -> Iterator[Finding]:
    advice = "a row cannot be both: drop it from the side it does not belong to"
    same = equal_rows(safe.texts, harmful.texts)
    yield from _pairs("same_row_on_both_sides", "error", safe, harmful, same, advice)
    near = _without(near_rows(safe.vectors, harmful.vectors), same)
    yield from _pairs("near_row_on_both_sides", "error", safe, harmful, near, advice)
    asked = _without(equal_rows(safe.prompts, harmful.prompts), same)
    yield from _pairs(
        "same_prompt_on_both_sides", "note", safe, harmful, asked,
        "fine if the safe answer refuses what the harmful one grants; look at the answers",
    )  # fmt: skip
    inside = _inside(safe.vectors, harmful.vectors)
    if len(inside):
        share = len(inside) / safe.num_rows
        yield finding(
            "safe_rows_inside_harmful", "warning" if share > MOST_INSIDE else "note", safe, inside,
            f"all {NUM_NEIGHBOURS} nearest reference rows are harmful ones",
            "read them: rows that are not safe answers pull harmful custom rows in",
        )  # fmt: skip


def _inside(safe: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    """Safe rows whose nearest rows of both references are all harmful."""
    if len(harmful) < NUM_NEIGHBOURS:
        return np.zeros(0, dtype=np.int64)
    x, y = unit_rows(safe), unit_rows(harmful)
    inside = []
    for start in range(0, len(x), _CHUNK):
        part = x[start : start + _CHUNK]
        own = part @ x.T
        here = np.arange(len(part))
        own[here, start + here] = -2  # no row is its own neighbour
        kth = -np.partition(-(part @ y.T), NUM_NEIGHBOURS - 1, axis=1)[:, NUM_NEIGHBOURS - 1]
        inside.append(start + np.flatnonzero(own.max(axis=1) < kth))
        del own  # before the next one is made
    return np.concatenate(inside)


def _copies(reference: TextSet) -> Iterator[Finding]:
    advice = "keep one of each: copies count as often as they occur"
    same = equal_rows(reference.texts)
    near = _without(near_rows(reference.vectors), same)
    for name, pairs in (("equal_rows", same), ("near_copies", near)):
        many = len(pairs.rows) > MOST_COPIES * reference.num_rows
        severity: Severity = "warning" if many or name == "equal_rows" else "note"
        yield from _pairs(name, severity, reference, reference, pairs, advice)


def _leakage(reference: TextSet, custom: TextSet) -> Iterator[Finding]:
    same = equal_rows(custom.texts, reference.texts)
    near = _without(near_rows(custom.vectors, reference.vectors), same)
    advice = (
        "a trusted row needs no judging: drop it from one of the sets"
        if reference.name == "safe"
        else "these custom rows are known to be harmful: drop them from the custom set"
    )
    severity: Severity = "error" if reference.name == "harmful" else "warning"
    yield from _pairs(f"custom_row_in_{reference.name}", severity, custom, reference, same, advice)
    many = len(near.rows) > MOST_COPIES * custom.num_rows
    severity = "warning" if reference.name == "harmful" or many else "note"
    name = f"custom_row_near_{reference.name}"
    yield from _pairs(name, severity, custom, reference, near, advice)


def _asked(reference: TextSet, evaluation: TextSet) -> Iterator[Finding]:
    yield from _pairs(
        "evaluation_prompt", "warning", reference, evaluation,
        equal_rows(reference.prompts, evaluation.prompts),
        "scores on prompts that a reference holds are too good: drop the rows here",
    )  # fmt: skip


def _narrow(harmful: TextSet) -> Iterator[Finding]:
    if harmful.num_rows < FEWEST_FOR_TOPIC:
        return
    topic = densest_topic(harmful.vectors)
    if topic.share > LARGEST_TOPIC and len(topic.members) > 1:
        yield finding(
            "one_topic_dominates", "warning", harmful, topic.members,
            f"{topic.share:.0%} of the harmful rows are about the same thing",
            "harm of other kinds is far from this reference and stays: add rows of other kinds",
        )  # fmt: skip


def _composition(safe: TextSet, harmful: TextSet, custom: TextSet) -> Iterator[Finding]:
    shares = cluster_shares(custom.vectors, safe.vectors, harmful.vectors)
    many, few = shares.custom >= LEAST_CLUSTER, 0.1 * shares.custom
    lacking = many & (shares.safe < few) & (shares.harmful < few)
    rows = np.flatnonzero(lacking[shares.of_custom])
    if len(rows):
        yield finding(
            "missing_in_safe", "warning", custom, rows,
            f"{lacking.sum()} clusters with {len(rows) / custom.num_rows:.0%} of the custom rows hold "
            "hardly a reference row",
            "add trusted rows like these to the safe reference",
        )  # fmt: skip
    unused = (shares.safe >= LEAST_CLUSTER) & (shares.custom < 0.1 * shares.safe)
    rows = np.flatnonzero(unused[shares.of_safe])
    if len(rows):
        yield finding(
            "missing_in_custom", "note", safe, rows,
            f"{len(rows) / safe.num_rows:.0%} of the safe rows lie where hardly a custom row is",
            "fine for refusals of risky prompts; rows of another task take no part",
        )  # fmt: skip


def _form(safe: TextSet, custom: TextSet) -> Iterator[Finding]:
    measures: tuple[tuple[str, Callable[[Sequence[str]], float]], ...] = (
        ("length", median_length), ("script", latin_share),
    )  # fmt: skip
    for name, measure in measures:
        ours, theirs = measure(safe.texts), measure(custom.texts)
        if name == "length":
            shifted = max(ours, theirs) > LONGER * max(1, min(ours, theirs))
            what = f"median length {ours:,.0f} characters, of custom rows {theirs:,.0f}"
        else:
            shifted = abs(ours - theirs) > LATIN_SHIFT
            what = f"{ours:.0%} of the letters are Latin ones, of custom rows' {theirs:.0%}"
        if shifted:
            yield finding(
                f"{name}_differs", "warning", safe, [], what,
                "form instead of content may decide: take safe rows of the custom rows' form",
            )._replace(num_rows=safe.num_rows, share=1.0)  # fmt: skip


def _pairs(
    name: str, severity: Severity, of: TextSet, other: TextSet, pairs: Pairs, advice: str
) -> Iterator[Finding]:
    if len(pairs.rows):
        whose = "an earlier row" if of is other else f"a row of {other.name}"
        alike = "prompt as" if "prompt" in name else "text as"
        what = f"the same {alike} {whose}, but for punctuation and case"
        if "near" in name:
            what = f"cosine of {NEAR_DUPLICATE} or more to {whose}"
        yield finding(
            name, severity, of, pairs.rows, what, advice,
            scores=pairs.similarities, like=(other, pairs.others),
        )  # fmt: skip


def _without(pairs: Pairs, known: Pairs) -> Pairs:
    new = ~np.isin(pairs.rows, known.rows)
    return Pairs(*(each[new] for each in pairs))
