"""Cosine costs to both references, and the weights that solve Eq. 5."""

from pathlib import Path

import numpy as np
import polars as pl

from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
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
REFERENCES_COVER_ROWS = CheckSpec(
    "references_cover_rows",
    "Few custom rows lie farther from both references than the references' own rows do.",
)


def _cost(
    stage: Stage, x: np.ndarray, y: np.ndarray, references: tuple[np.ndarray, np.ndarray]
) -> Artifact:
    from sot_pipeline.transport.cost import cosine_cost, pooled_mean

    # of the references alone: the custom rows, whose mix is what is in question, do not move it
    center = pooled_mean(*references) if stage.settings.transport.centre else None
    if center is not None:
        np.save(stage.directory / "center.npy", center, allow_pickle=False)
    cost = cosine_cost(x, y, center=center)
    numbers = {"mean": float(cost.mean()), "std": float(cost.std()), "max": float(cost.max())}
    return Artifact(array=cost, document={"centred": center is not None}, metadata=numbers)


def saved_center(cost: Stored) -> np.ndarray | None:
    """The point that a cost matrix was centred on."""
    path = cost.directory / "center.npy"
    return np.load(path, allow_pickle=False) if path.exists() else None


@cached_asset(group="transport", kinds={"jax"}, settings=("transport.centre",))
def pull_cost(
    stage: Stage,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
) -> Artifact:
    """Cosine cost of every custom row to every safe row, float32 [custom, safe], in [0, 2]."""
    references = (safe_embeddings, harmful_embeddings)
    return _cost(stage, custom_embeddings, safe_embeddings, references)


@cached_asset(group="transport", kinds={"jax"}, settings=("transport.centre",))
def push_cost(
    stage: Stage,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
) -> Artifact:
    """Cosine cost of every custom row to every harmful row, float32 [custom, harmful]."""
    references = (safe_embeddings, harmful_embeddings)
    return _cost(stage, custom_embeddings, harmful_embeddings, references)


@cached_asset(
    group="transport",
    kinds={"jax", "duckdb"},
    settings=("transport",),
    checks=(CONVERGED, TELLS_ROWS_APART, SAFE_ANCHOR_MATCHES, REFERENCES_COVER_ROWS),
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
    from sot_pipeline.transport.cost import pooled_std
    from sot_pipeline.transport.push_pull import learn_weights

    settings = stage.settings.transport
    pull, push = pull_cost.array(), push_cost.array()
    scale = pooled_std(pull, push)
    fit = learn_weights(
        pull,
        push,
        lambda_push=settings.lambda_push,
        epsilon=settings.epsilon or settings.epsilon_in_std * scale,
        tau=settings.tau,
        target_ess=settings.target_ess if settings.tau is None else None,
        reference_relaxation=settings.reference_relaxation,
        optimizer=settings.optimizer,
        tolerance=settings.tolerance,
        max_steps=settings.max_steps,
        progress=stage.progress("steps"),
    )
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
    document = {
        "converged": fit.converged,
        "residual": fit.residual,
        "tolerance": fit.tolerance,
        "num_steps": fit.num_steps,
        "marginal_errors": list(fit.marginal_errors),
        "epsilon": fit.epsilon,
        "epsilon_in_std": fit.epsilon / scale,
        "tau": fit.tau,
        "lambda_push": fit.lambda_push,
        "effective_sample_size": fit.effective_sample_size,
        "objective": float(fit.objective_trace[-1]),
    }
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
            + ("" if fit.converged else ": raise transport.max_steps or transport.epsilon_in_std"),
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
            REFERENCES_COVER_ROWS,
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
