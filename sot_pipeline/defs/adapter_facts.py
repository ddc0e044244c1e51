"""What an adapter was made from and what was measured of it, as its model card tells it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sot_pipeline import __version__
from sot_pipeline.defs.assets.base_model import base_model_path
from sot_pipeline.defs.store import Store, Stored, fingerprint_of
from sot_pipeline.errors import InputError

if TYPE_CHECKING:
    from sot_pipeline.publishing.model_card import CardFacts, TextSetFacts

TEXT_SETS = ("custom", "safe", "harmful")
ADAPTER_SETTINGS = (
    "rank", "lora_alpha", "target_modules", "learning_rate", "schedule", "warmup_fraction",
    "num_epochs", "num_steps", "batch_size", "micro_batch_size", "max_length", "seed",
)  # fmt: skip


class Base(NamedTuple):
    kind: Literal["hub", "directory", "demo"]
    path: str
    revision: str | None


class Adapter(NamedTuple):
    """A task's adapter with exactly what it was made from."""

    stored: Stored
    base: Base
    samples: Stored  # training_samples
    texts: Mapping[str, Stored]  # by role
    selected: Stored

    @property
    def directory(self) -> Path:
        return self.stored.directory / "adapter"

    @property
    def settings(self) -> dict[str, Any]:
        return self.stored.manifest["settings"]["finetuning"]

    @property
    def defence(self) -> dict[str, Any]:
        """Its name, and what was set of it."""
        found = self.stored.manifest["settings"].get("defence", {})
        return {f"defence {name}" if name != "name" else "defence": v for name, v in found.items()}


def adapter_of(store: Store, task: str, stored: Stored | None) -> Adapter | None:
    if stored is None:
        return None
    inputs = stored.manifest["inputs"]
    samples = _version(store, task, "training_samples", inputs["training_samples"])
    lineage = samples.manifest["lineage"]
    names = [f"{role}_texts" for role in TEXT_SETS]
    texts = [_version(store, task, name, lineage[name]) for name in names]
    return Adapter(
        stored,
        base_of(_version(store, task, "aligned_base_model", inputs["aligned_base_model"])),
        samples,
        dict(zip(TEXT_SETS, texts, strict=True)),
        _version(store, task, "selected_samples", lineage["selected_samples"]),
    )


def _version(store: Store, task: str, asset: str, data_version: str) -> Stored:
    """The version of an input that something was made from; the task's own, and of samples that
    were taken over from an earlier selection the ones that were made."""
    own = [s for s in store.history(task, asset) if s.data_version == data_version]
    made = [s for s in own if not s.document.get("kept")]
    found = next(iter(made or own), None) or store.find_version(asset, data_version)
    if found is None:
        raise InputError(
            f"the adapter of task {task!r} cannot be described: the {asset} it was made from left "
            f"the store. Run `sot finetune {task}` again."
        )
    return found


def base_of(stored: Stored) -> Base:
    source = stored.document["source"]
    kind: Literal["hub", "directory", "demo"] = source if source in ("hub", "demo") else "directory"
    return Base(kind, *base_model_path(stored))


def card_facts(task: str, adapter: Adapter, evaluation: Stored | None) -> "CardFacts":
    from sot_pipeline.finetuning.loop import BETAS
    from sot_pipeline.publishing.model_card import CardFacts
    from sot_pipeline.selection import effective_sample_size

    settings, samples = adapter.settings, adapter.samples.table()
    known = set(ADAPTER_SETTINGS) | {"weighted", "max_gradient_norm"}
    scores, no_scores = _scores(task, adapter.stored, evaluation)
    versions = {role: stored.data_version for role, stored in adapter.texts.items()}
    return CardFacts(
        task=task,
        base=adapter.base.path,
        base_kind=adapter.base.kind,
        base_revision=adapter.base.revision,
        text_sets=[_text_set(role, stored) for role, stored in adapter.texts.items()],
        data_fingerprint=fingerprint_of({**versions, "samples": adapter.samples.data_version}),
        adapter_version=adapter.stored.data_version,
        num_rows=samples.height,
        num_removed=adapter.texts["custom"].manifest["rows"] - samples.height,
        effective_sample_size=effective_sample_size(samples["sample_weight"].to_numpy()),
        weighted=settings.get("weighted", True),
        selection=shown(adapter.selected.document),
        rank=settings["rank"],
        lora=shown({name: settings[name] for name in ADAPTER_SETTINGS if name in settings})
        | {
            "optimiser": f"AdamW, betas {BETAS}, gradient norm at most {settings.get('max_gradient_norm', 1.0)}"
        },
        further=shown(
            adapter.defence | {name: v for name, v in settings.items() if name not in known}
        ),
        training=shown({n: v for n, v in adapter.stored.document.items() if n != "seed"}),
        scores=scores,
        judge=evaluation.document.get("judge") if evaluation is not None and scores else None,
        no_scores=no_scores,
        libraries=adapter.stored.manifest["libraries"],
        version=__version__,
    )


def _scores(task: str, adapter: Stored, evaluation: Stored | None):
    """The scores of exactly this adapter, or why there are none."""
    from sot_pipeline.publishing.model_card import ScoreFacts

    remedy = f"run `sot evaluate {task}` with prompts"
    if evaluation is None:
        return [], f"it has not been evaluated ({remedy})"
    if evaluation.manifest["inputs"].get("adapter") != adapter.data_version:
        return [], f"the last evaluation is of another adapter ({remedy})"
    table = evaluation.table()
    base = dict(table.filter(method="base").select("score", "value").iter_rows())
    scores = [
        ScoreFacts(
            row["score"], row["value"], row["low"], row["high"], base.get(row["score"]),
            row["num_judged"], row["num_missing"],
        )
        for row in table.remove(method="base").iter_rows(named=True)
    ]  # fmt: skip
    return scores, "" if scores else f"it was evaluated on no prompts ({remedy})"


def _text_set(role: str, stored: Stored) -> "TextSetFacts":
    from sot_pipeline.publishing.model_card import TextSetFacts

    document = stored.document
    locations = tuple(str(file["location"]) for file in document.get("files", ()))
    return TextSetFacts(
        role, document["name"], stored.manifest["rows"], document["sha256"],
        document["licence"], locations,
    )  # fmt: skip


def shown(values: Mapping[str, Any]) -> dict[str, str]:
    """Recorded values for people: few digits, lists as words, nothing that is empty."""
    return {
        name.replace("_", " "): _in_words(value)
        for name, value in values.items()
        if value is not None
    }


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(v)}" for name, v in value.items())
    return str(value)
