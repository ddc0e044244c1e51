"""The LoRA adapter on the purified rows."""

import polars as pl

from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.defended import Safety
from sot_pipeline.defs.methods import READS
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.defs.training import loss_plots, train_adapter

LOSS_WENT_DOWN = CheckSpec("loss_went_down", "The training loss ends below where it began.")


def _uses(settings: Settings, name: str) -> bool:
    return name not in Safety._fields or name in READS[settings.defence.name]


@cached_asset(
    group="adapter",
    kinds={"torch", "huggingface"},
    settings=("finetuning",),
    parts_of_settings=lambda settings: {"defence": settings.defence.of(settings.defence.name)},
    checks=(LOSS_WENT_DOWN,),
    uses=_uses,
    only_shows=("sot_pipeline.report",),
)
def adapter(
    stage: Stage,
    training_samples: pl.DataFrame,
    aligned_base_model: Stored,
    safety_demonstrations: Stored,
    harmless_prompts: Stored,
    safe_texts: Stored,
) -> Artifact:
    """The LoRA adapter, fine-tuned on the purified rows with their learned weights, under the
    defence that `defence.name` says."""
    settings = stage.settings.finetuning
    training = train_adapter(
        stage,
        aligned_base_model,
        training_samples,
        training_samples["sample_weight"].to_numpy(),
        settings.seed,
        stage.directory / "adapter",
        str(stage.settings.own_method),
        stage.settings.defence.name,
        Safety(safety_demonstrations, harmless_prompts, safe_texts),
    )
    info = training.info
    first, last = info["loss_first"], info["loss_last"]
    return Artifact(
        table=training.log,
        plots=loss_plots(training.log),
        document={**info, "seed": settings.seed},
        metadata={name: value for name, value in info.items() if value is not None},
        checks=(
            check(
                LOSS_WENT_DOWN,
                last < first,
                f"mean loss of the first tenth of steps {first:.3f}, of the last {last:.3f}",
                first=first,
                last=last,
            ),
        ),
    )
