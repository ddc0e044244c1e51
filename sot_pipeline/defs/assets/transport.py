"""The weights that solve Eq. 5, and what held-out reference rows score under them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.costs import saved_center
from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.store import Artifact, Check, Stored

CONVERGED = CheckSpec(
    "converged",
    "The solve reached its tolerance; weights that did not converge are never used.",
    blocking=True,
)
TELLS_ROWS_APART = CheckSpec(
    "weights_tell_rows_apart",
    "Uniform weights mean the costs carried no signal; a handful of rows with all the weight "
    "mean that the solve degenerated.",
)
SAFE_ANCHOR_MATCHES = CheckSpec(
    "safe_anchor_matches",
    "The safe reference is about the custom rows' task; a general one can do worse than none.",
)
REFERENCE_COVERAGE = CheckSpec(
    "reference_coverage",
    "Few custom rows lie farther from both references than the references' own rows do.",
)
CALIBRATION_CONVERGED = CheckSpec(
    "calibration_converged",
    "The solve that scores the held-out rows reached its tolerance.",
    blocking=True,
)
LEAST_KNOWN_ROWS = 0.5  # share of the custom rows; with fewer a solve starts afresh


@cached_asset(
    group="transport",
    kinds={"jax", "duckdb"},
    settings=("transport",),
    checks=(CONVERGED, TELLS_ROWS_APART, SAFE_ANCHOR_MATCHES, REFERENCE_COVERAGE),
    only_shows=("sot_pipeline.report",),
)
def sample_weights(
    stage: Stage,
    custom_texts: pl.DataFrame,
    pull_cost: Stored,
    push_cost: Stored,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
) -> Artifact:
    """Weight of each custom row: the minimiser of Eq. 5 on the simplex, with the dual potentials
    that new rows are scored with."""
    from sot_pipeline.selection import nearest_reference, ranks

    pull, push = pull_cost.array(), push_cost.array()
    begun = time.perf_counter()
    fit, started = _solved(stage, pull, push, custom_texts["sample_id"])
    solved = {"started": started, "solve_seconds": round(time.perf_counter() - begun, 3)}
    save_fit(fit, stage.directory / "fit")
    nearest_safe, safe_cost = nearest_reference(pull)
    nearest_harmful, harmful_cost = nearest_reference(push)
    table = custom_texts.select("sample_id").with_columns(
        pl.Series("log_weight", fit.log_weights),
        pl.Series("weight", fit.weights),
        pl.Series("rank", ranks(fit.log_weights)),
        pl.Series("pull", fit.pull_scores),
        pl.Series("push", fit.push_scores),
        pl.Series("nearest_safe_row", nearest_safe),
        pl.Series("safe_cost", safe_cost),
        pl.Series("nearest_harmful_row", nearest_harmful),
        pl.Series("harmful_cost", harmful_cost),
    )
    document = _fit_document(fit) | solved
    return Artifact(
        table=table,
        document=document | {"objective_trace": [float(v) for v in fit.objective_trace]},
        metadata=document | {"marginal_errors": str(fit.marginal_errors)},
        plots=_plots(fit),
        checks=_checks(
            fit,
            (custom_embeddings, safe_embeddings, harmful_embeddings),
            saved_center(pull_cost),
        ),
    )


def _solved(stage: Stage, pull: np.ndarray, push: np.ndarray, sample_ids: pl.Series):
    """The fit, from the weights and potentials of the task's earlier one where there is one, and
    how it started. What it converges to does not depend on that, up to the tolerance."""
    learn = learner(stage)
    init = _earlier_fit(stage, sample_ids)
    if init is not None:
        fit = learn(pull, push, init=init)
        if fit.converged:
            return fit, "warm"
    return learn(pull, push), "cold"


def _earlier_fit(stage: Stage, sample_ids: pl.Series):
    """The task's earlier fit, for these rows; None where it is of no use."""
    from sot_pipeline.transport.fit import carried_over

    earlier = stage.earlier
    if earlier is None or stage.settings.transport.optimizer != "mirror":
        return None
    places = pl.DataFrame({"sample_id": sample_ids}).join(
        earlier.table().select("sample_id").with_row_index("place"),
        on="sample_id",
        how="left",
        maintain_order="left",
    )
    rows = places["place"].cast(pl.Int64).fill_null(-1).to_numpy()
    if np.mean(rows >= 0) < LEAST_KNOWN_ROWS:
        return None
    return carried_over(load_fit(earlier.directory / "fit"), rows)


def learner(stage: Stage, **changed: Any) -> Callable[..., Any]:
    """`learn_weights` with the task's settings bound, but for those `changed`."""
    from sot_pipeline.transport.cost import spreads
    from sot_pipeline.transport.push_pull import learn_weights

    settings = stage.settings.transport

    def learn(pull: np.ndarray, push: np.ndarray, init=None):
        options = {
            "lambda_push": settings.lambda_push,
            "epsilon": settings.epsilon
            or settings.epsilon_in_spreads * spreads(pull, push).within_rows,
            "tau": settings.tau,
            "target_ess": settings.target_ess if settings.tau is None else None,
            "reference_relaxation": settings.reference_relaxation,
            "optimizer": settings.optimizer,
            "tolerance": settings.tolerance,
            "max_steps": settings.max_steps,
        }
        return learn_weights(
            pull, push, **(options | changed), init=init, progress=stage.progress("steps")
        )

    return learn


def _fit_document(fit) -> dict[str, Any]:
    return {
        "converged": fit.converged,
        "residual": fit.residual,
        "tolerance": fit.tolerance,
        "num_steps": fit.num_steps,
        "marginal_errors": list(fit.marginal_errors),
        "epsilon": fit.epsilon,
        "epsilon_in_std": fit.epsilon / fit.cost_std,
        "num_sweeps": fit.num_sweeps,
        "tau": fit.tau,
        "lambda_push": fit.lambda_push,
        "effective_sample_size": fit.effective_sample_size,
        "objective": float(fit.objective_trace[-1]),
    }


def is_calibrated(settings: Settings, name: str = "") -> bool:
    return settings.selection.method == "calibrated"


def unless_top_k(settings: Settings, name: str) -> bool:
    """Whether an input is read: the calibration only where it decides."""
    return name != "calibration" or is_calibrated(settings)


@cached_asset(
    group="transport",
    kinds={"jax", "duckdb"},
    settings=(
        "transport",
        "selection.method",
        "selection.held_out_share",
        "selection.split_seed",
    ),
    checks=(CALIBRATION_CONVERGED,),
    uses=is_calibrated,
)
def calibration(
    stage: Stage,
    custom_texts: pl.DataFrame,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
) -> Artifact:
    """For selection.method `calibrated`: weights learned against a part of both references, and
    what the rest of the references score under them. For `top_k` nothing is computed."""
    if not is_calibrated(stage.settings):
        unasked = "not computed: selection.method is top_k"
        answer = check(CALIBRATION_CONVERGED, True, unasked)
        return Artifact(metadata={"calibration": unasked}, checks=(answer,))
    from sot_pipeline.selection import ranks
    from sot_pipeline.transport.calibration import calibrate, estimate_contamination, p_values

    result = calibrate(
        custom_embeddings,
        safe_embeddings,
        harmful_embeddings,
        held_out_share=stage.settings.selection.held_out_share,
        seed=stage.settings.selection.split_seed,
        centre=stage.settings.transport.centre,
        learn=learner(stage),
    )
    fit, scores, held_out = result.fit, result.custom, result.held_out_harmful
    save_fit(fit, stage.directory / "fit")
    arrays = {
        "held_out_harmful": held_out,
        "held_out_safe": result.held_out_safe,
        "safe_fitted": result.safe_split.fitted,
        "harmful_fitted": result.harmful_split.fitted,
        "center": result.center,
    }
    for name, values in arrays.items():
        if values is not None:
            np.save(stage.directory / f"{name}.npy", values, allow_pickle=False)
    found = estimate_contamination(scores.log_weights, held_out)
    numbers = {
        "contamination": found.share,
        "contamination_low": found.low,
        "contamination_high": found.high,
        "num_held_out_harmful": len(held_out),
        "num_held_out_safe": len(result.held_out_safe),
    }
    document = _fit_document(fit) | numbers
    return Artifact(
        table=custom_texts.select("sample_id").with_columns(
            pl.Series("log_weight", scores.log_weights),
            pl.Series("rank", ranks(scores.log_weights)),
            pl.Series("pull", scores.pull_scores),
            pl.Series("push", scores.push_scores),
            pl.Series("harmful_p_value", p_values(scores.log_weights, held_out)),
        ),
        document=document
        | {
            "log_total": result.log_total,
            "objective_trace": [float(v) for v in fit.objective_trace],
        },
        metadata=document | {"marginal_errors": str(fit.marginal_errors)},
        checks=(
            check(
                CALIBRATION_CONVERGED,
                fit.converged,
                f"residual {fit.residual:.2g} after {fit.num_steps} steps, tolerance "
                f"{fit.tolerance:.2g}" + ("" if fit.converged else ": raise transport.max_steps"),
                residual=fit.residual,
            ),
        ),
    )


def deciding_weights(sample_weights: pl.DataFrame, calibration: Stored | None) -> pl.DataFrame:
    """The weights that rank and cut: under `calibrated` those of the calibration, whose scores
    the rate is about. `harmful_p_value` is null without it."""
    columns = sample_weights.drop("weight")
    if calibration is None:
        return columns.with_columns(harmful_p_value=pl.lit(None, dtype=pl.Float64))
    return columns.with_columns(calibration.table().drop("sample_id").get_columns())


def _checks(
    fit, embeddings: tuple[np.ndarray, np.ndarray, np.ndarray], center: np.ndarray | None
) -> tuple[Check, ...]:
    from sot_pipeline.transport.diagnostics import (
        anchor_match,
        reference_coverage,
        weight_collapse,
    )

    collapse = weight_collapse(fit)
    anchor = anchor_match(embeddings[0], embeddings[1], center=center)
    coverage = reference_coverage(*embeddings, center=center)
    spread = (
        f"effective sample size {fit.effective_sample_size:,.0f} of {len(fit.log_weights):,} rows, "
        f"potentials spread {collapse.signal_to_noise:.1f} times what chance gives"
    )
    remedies = {
        "none": "",
        "nothing_learned": ": nothing was learned, the references do not tell these rows apart",
        "degenerate": ": a few rows carry all the weight, raise transport.target_ess",
    }
    matched = (
        "too few rows to tell whether the safe reference matches the task"
        if anchor.matched is None
        else f"mixing of custom and safe rows {anchor.mixing:.2f} (0.5: one population; at least "
        f"{anchor.threshold:.2f} expected)"
        + ("" if anchor.matched else ": use a safe reference with rows of the same task")
    )
    return (
        check(
            CONVERGED,
            fit.converged,
            f"residual {fit.residual:.2g} after {fit.num_steps} steps, tolerance "
            f"{fit.tolerance:.2g}; marginal errors {fit.marginal_errors[0]:.1g} and "
            f"{fit.marginal_errors[1]:.1g}"
            + (
                ""
                if fit.converged
                else ": raise transport.max_steps or transport.epsilon_in_spreads"
            ),
            residual=fit.residual,
            num_steps=fit.num_steps,
        ),
        check(
            TELLS_ROWS_APART,
            collapse.verdict == "none",
            spread + remedies[collapse.verdict],
            effective_share=collapse.effective_share,
            signal_to_noise=collapse.signal_to_noise,
        ),
        check(
            SAFE_ANCHOR_MATCHES,
            anchor.matched is not False,
            matched,
            **({} if anchor.matched is None else {"mixing": anchor.mixing}),
        ),
        check(
            REFERENCE_COVERAGE,
            coverage.covered,
            f"{coverage.uncovered_share:.1%} of the custom rows lie farther from both references "
            f"than 99 % of the references' own rows do (at most {coverage.threshold:.0%} expected)"
            + ("" if coverage.covered else ": add reference rows like them"),
            uncovered_share=coverage.uncovered_share,
        ),
    )


def _plots(fit) -> dict[str, bytes]:
    from sot_pipeline.report.figures import objective_trace_png, weight_histogram_png

    every_row = np.ones(len(fit.log_weights), dtype=bool)  # the cut comes later
    return {
        "weight_histogram": weight_histogram_png(fit.log_weights, every_row, width_px=400),
        "objective_trace": objective_trace_png(fit.objective_trace, width_px=400),
    }


def save_fit(fit, directory: Path) -> None:
    """Write a fit as plain arrays and numbers."""
    import json

    directory.mkdir()
    scalars = {}
    for name, value in fit._asdict().items():
        if isinstance(value, np.ndarray):
            np.save(directory / f"{name}.npy", value, allow_pickle=False)
        else:
            scalars[name] = value
    (directory / "scalars.json").write_text(json.dumps(scalars))


def load_fit(directory: Path):
    """The fit that `save_fit` wrote."""
    import json

    from sot_pipeline.transport.fit import PushPullFit

    values = json.loads((directory / "scalars.json").read_text())
    values["marginal_errors"] = tuple(values["marginal_errors"])
    for path in directory.glob("*.npy"):
        values[path.stem] = np.load(path, allow_pickle=False)
    return PushPullFit(**values)
