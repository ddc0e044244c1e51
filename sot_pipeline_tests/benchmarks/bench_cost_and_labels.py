"""Does the transport score say what people say of an answer?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_cost_and_labels.py

The labelled answers (agreement.parquet) are the custom set, safe_alpaca and harmful_reference the
references. Each score is compared with the people's label by source: Spearman's rho with a 95 %
bootstrap interval, and AUROC. Next to the rows as the pipeline embeds them stand the prompt alone
and the answer alone, and AUROC within a prompt: pairs of answers to one prompt that people labelled
differently, where the topic cannot help. Scores are turned round: large says harmful. The harmful
rows' text is never shown.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from sot_pipeline.evaluation.agreement import accuracy, estimate, kappa, spearman, value_of
from sot_pipeline.evaluation.embedding_judge import cross_fitted, fit
from sot_pipeline.evaluation.labelled import LabelledFile, read_labelled
from sot_pipeline.transport.cost import cosine_cost, pooled_mean
from sot_pipeline.transport.push_pull import learn_weights
from sot_pipeline_tests.benchmarks.real_sets import Load, Set, rivals

pytestmark = pytest.mark.bench
RIVALS = ("logistic regression, C 1", "centroid difference", "5-nearest-neighbour margin",
          "20-nearest-neighbour margin")  # fmt: skip
PARTS = ("row", "prompt alone", "answer alone")
OF_PARTS = ("push-pull", "20-nearest-neighbour margin")  # scores shown for the parts too


class Problem(NamedTuple):
    """The labelled answers as a custom set, and both references, in one sort of vectors."""

    custom: np.ndarray
    safe: np.ndarray
    harmful: np.ndarray


def scores_of(problem: Problem) -> Iterator[tuple[str, np.ndarray]]:
    """Name and score of each row; large says harmful."""
    center = pooled_mean(problem.safe)
    pull_cost = cosine_cost(problem.custom, problem.safe, center=center)
    push_cost = cosine_cost(problem.custom, problem.harmful, center=center)
    for name, lambda_push in (("push-pull", 0.5), ("pull alone", 0.0), ("push alone", 1.0)):
        fit = learn_weights(pull_cost, push_cost, lambda_push=lambda_push)
        yield name if fit.converged else f"{name} (not converged)", -fit.log_weights
    for name, score in rivals(*problem):
        if name in RIVALS:
            yield name, -score()


def problem_of(load: Load, part: str) -> Problem:
    """Whole rows as the pipeline embeds them, or one part of every row."""
    if part == "row":
        sets: list[Set] = [load(n) for n in ("agreement", "safe_alpaca", "harmful_reference")]
        return Problem(*(each.vectors for each in sets))
    # without the echo's removal both halves are the parts as the encoder gives them
    sets = [load(n, "apart") for n in ("agreement", "safe_alpaca", "harmful_reference")]
    half = sets[0].vectors.shape[1] // 2
    wanted = slice(0, half) if part == "prompt alone" else slice(half, None)
    return Problem(*(each.vectors[:, wanted] for each in sets))


class Target(NamedTuple):
    """A label of people's: NaN where a row has none."""

    name: str
    label: np.ndarray
    is_graded: bool = False


def targets_of(file: LabelledFile) -> Iterator[Target]:
    source = file.rows["source"].to_numpy()
    for name in file.sources:
        own = file.of_source(name)
        for kind in own.kinds:
            truth = np.full(file.rows.height, np.nan)
            truth[source == name] = own.truth(kind)
            yield Target(f"{name}, {kind}", truth)
            grades = own.grades(kind)
            if grades is not None:
                graded = np.full(file.rows.height, np.nan)
                graded[source == name] = grades
                yield Target(f"{name}, {kind} in grades", graded, is_graded=True)


def within_prompts(score: np.ndarray, label: np.ndarray, prompts: np.ndarray) -> tuple[float, int]:
    """Chance that of two answers to one prompt the one labelled yes has the larger score, and the
    number of such pairs; ties count one half."""
    won, total = 0.0, 0
    for prompt in np.unique(prompts):
        own = prompts == prompt
        yes, no = score[own & (label == 1)], score[own & (label == 0)]
        difference = np.subtract.outer(yes, no)
        won += (difference > 0).sum() + (difference == 0).sum() / 2
        total += difference.size
    return (won / total if total else np.nan), total


def cells(score: np.ndarray, target: Target, prompts: np.ndarray) -> list[str]:
    known = ~np.isnan(target.label)
    found = estimate(spearman, np.stack([score, target.label], axis=1)[known], num_resamples=1000)
    rho = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    if target.is_graded:
        return [rho, "–", "–"]
    area = roc_auc_score(target.label[known], score[known])
    _, codes = np.unique(prompts[known], return_inverse=True)
    within, pairs = within_prompts(score[known], target.label[known], codes)
    return [rho, f"{area:.3f}", f"{within:.3f} ({pairs:,} pairs)" if pairs else "–"]


@pytest.fixture(scope="module")
def labelled(shared_data: Path) -> LabelledFile:
    return read_labelled(shared_data / "agreement.parquet")


def test_the_scores_against_peoples_labels(load, labelled, shared_data, capsys):
    rows = pl.read_parquet(shared_data / "agreement.parquet", columns=["id", "prompt"])
    assert labelled.rows["id"].equals(rows["id"]), "vectors and labels are of the same rows"
    prompts = rows["prompt"].to_numpy()
    found: dict[str, Mapping[str, np.ndarray]] = {
        part: dict(scores_of(problem_of(load, part))) for part in PARTS
    }
    with capsys.disabled():
        for target in targets_of(labelled):
            known = target.label[~np.isnan(target.label)]
            share = "" if target.is_graded else f", {known.mean():.1%} yes"
            print(f"\n### {target.name} ({len(known):,} rows{share})\n")
            print("| score | vectors | Spearman | AUROC | AUROC within a prompt |")
            print("|---|---|---|---|---|")
            for part in PARTS:
                for name, score in found[part].items():
                    if part != "row" and not name.startswith(OF_PARTS):
                        continue
                    print(f"| {name} | {part} | {' | '.join(cells(score, target, prompts))} |")
    harm = next(t for t in targets_of(labelled) if t.name == "do_not_answer, harm")
    known = ~np.isnan(harm.label)
    score = found["row"]["push-pull"][known]
    _, codes = np.unique(prompts[known], return_inverse=True)
    assert roc_auc_score(harm.label[known], score) > 0.6
    assert within_prompts(score, harm.label[known], codes)[0] > 0.7


def test_the_learned_judge_on_a_source_that_it_did_not_learn_from(load, labelled, capsys):
    """The same vectors with people's labels to learn from, of the same source and of others."""
    vectors, source = load("agreement").vectors, labelled.rows["source"].to_numpy()
    groups = labelled.labelled_answers().groups
    with capsys.disabled():
        print(
            "\n| source | kind | learned from | accuracy | kappa | AUROC |\n|---|---|---|---|---|---|"
        )
        for kind in labelled.kinds:
            truth = labelled.yes_no(kind)
            rows = np.flatnonzero(~np.isnan(truth))
            label, own = truth[rows] == 1, source[rows]
            pooled = cross_fitted(vectors[rows], label, [groups[row] for row in rows])
            for name in np.unique(own):
                rest = rows[own != name]
                model = fit(vectors[rest], truth[rest] == 1, [groups[row] for row in rest])
                there = own == name
                for learned, found in (
                    ("all sources, other prompts", pooled[there]),
                    ("other sources", model.probability(vectors[rows[there]])),
                ):
                    ratings = np.stack([label[there], found >= 0.5], axis=1).astype(float)
                    area = roc_auc_score(label[there], found)
                    print(
                        f"| {name} | {kind} | {learned} | {value_of(accuracy, ratings):.3f} | "
                        f"{value_of(kappa, ratings):.3f} | {area:.3f} |"
                    )
                    assert area > 0.5
