"""The whole graph on one screen, in pipeline order."""

import dagster as dg

from sot_pipeline.defs.assets import (
    adapter,
    base_model,
    changes,
    comparison,
    costs,
    embeddings,
    evaluation,
    experiments,
    maps,
    purified,
    report,
    reviews,
    rivals,
    safety,
    texts,
    transport,
)
from sot_pipeline.defs.automation import (
    nightly_reconcile,
    on_change,
    orphaned_runs,
    sot_automation,
    task_files,
)
from sot_pipeline.defs.dagster_assets import (
    HomeResource,
    NoReturnValues,
    dagster_asset,
)
from sot_pipeline.defs.notifications import run_failed, selection_moved
from sot_pipeline.defs.pages import job_description
from sot_pipeline.defs.source_files import source_files, text_set_files

INPUTS = (
    texts.custom_texts,  # D_custom, the rows to purify
    texts.safe_texts,  # D_safe, trusted rows of the task
    texts.harmful_texts,  # D_harmful
    texts.rejected_rows,
    base_model.aligned_base_model,
    embeddings.custom_embeddings,
    embeddings.safe_embeddings,
    embeddings.harmful_embeddings,
)
TRANSPORT = (
    costs.cost_center,  # where angles are taken from
    costs.pull_cost,  # cosine costs to the safe reference
    costs.push_cost,  # ... and to the harmful one
    transport.sample_weights,  # Eq. 5
    transport.calibration,  # ... against a part of the references, for a cut with a stated risk
)
PURIFIED = (
    reviews.review_decisions,  # what people said about single rows
    purified.selected_samples,  # Top-K, or calibrated, and the decisions
    purified.explanations,
    purified.removed_samples,
    purified.purified_export,
    maps.embedding_map,  # where the rows lie, for the reports
    maps.reference_coverage,
)
ADAPTER = (
    changes.training_samples,  # the selection, unless it hardly moved since the last training
    safety.safety_demonstrations,  # what defences learn from, where one asks for it
    safety.harmless_prompts,
    adapter.adapter,  # weighted LoRA, under a defence
    evaluation.evaluation,  # HmS, HpS, accuracy, over-refusal
)
RIVALS = tuple(rivals.RIVAL_ASSETS.values())  # other scores of the same rows, where asked for
COMPARISON = (
    comparison.compared_selections,  # what each method would keep
    comparison.selection_quality,  # ... against the truth, where it is known
    comparison.comparison,  # the same training on each, under each defence
)
REPORT = (
    report.purification_report,
    changes.purification_changes,  # since the purification before
    report.safety_report,
)
# By `group`, each box of the lineage follows from those before it: no arrow leads back.
EXPERIMENTS = {  # the paper's; each runs by its own job, experiment_NAME
    "ablation": experiments.ablation,
    "lambda": experiments.lambda_sweep,
    "keep": experiments.keep_sweep,
    "contamination": experiments.contamination_sweep,
    "embedders": experiments.embedder_swap,
}
PIPELINE = (*INPUTS, *TRANSPORT, *PURIFIED, *ADAPTER, *RIVALS, *COMPARISON, *REPORT)
ASSETS = (*PIPELINE, *EXPERIMENTS.values())

SENSORS = (
    task_files,  # data/tasks/*.yaml -> partitions
    source_files,  # changed text sets and decisions -> observations
    sot_automation,  # ... -> one run of what depends on them
    orphaned_runs,
    run_failed,  # -> webhook
    selection_moved,  # -> webhook
)

PURIFY = {
    *(asset.name for asset in (*INPUTS, *TRANSPORT, *PURIFIED)),
    "purification_report",
    "purification_changes",
}
JOBS = {
    "purify": PURIFY,
    "finetune": PURIFY
    | {"training_samples", "safety_demonstrations", "harmless_prompts", "adapter"},
    "compare_selections": PURIFY
    | {"compared_selections", "selection_quality"}
    | {asset.name for asset in RIVALS},
    "purify_and_finetune": {asset.name for asset in PIPELINE},
    **{f"experiment_{name}": PURIFY | {asset.name} for name, asset in EXPERIMENTS.items()},
}
DESCRIPTIONS = {
    "purify": "Read, embed, weigh and cut one task's rows; write the files and a report.",
    "finetune": "Purify, and fine-tune the adapter with the learned weights.",
    "compare_selections": "Which rows other methods would keep, and how good each choice is.",
    "purify_and_finetune": "Purify, fine-tune, evaluate, compare as the settings say, report.",
    **{f"experiment_{name}": asset.description for name, asset in EXPERIMENTS.items()},
}


def job(name: str):
    assets = [asset for asset in ASSETS if asset.name in JOBS[name]]
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*sorted(JOBS[name])),
        description=job_description(DESCRIPTIONS[name], assets),
    )


def build_definitions(home: str | None = None) -> dg.Definitions:
    """The graph on one home folder; None: `$SOT_HOME`, or `data/` where the process runs."""
    return dg.Definitions(
        assets=[
            text_set_files,
            *(dagster_asset(asset, on_change(asset)) for asset in PIPELINE),
            *(dagster_asset(asset) for asset in EXPERIMENTS.values()),  # only when asked for
        ],
        jobs=[job(name) for name in JOBS],
        sensors=SENSORS,
        schedules=[nightly_reconcile],
        resources={"home": HomeResource(root=home), "io_manager": NoReturnValues()},
        # Steps share one process: importing torch and jax once a step costs more than most steps
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions()
