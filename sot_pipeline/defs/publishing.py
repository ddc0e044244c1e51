"""Export a task: what its current versions hold, in the form that other tools load."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline import __version__
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.settings import FinetuningSettings
from sot_pipeline.defs.store import Store, Stored, fingerprint_of
from sot_pipeline.errors import InputError

if TYPE_CHECKING:
    from sot_pipeline.publishing.chat_rows import TokenizerFacts
    from sot_pipeline.publishing.model_card import CardFacts, TextSetFacts
    from sot_pipeline.publishing.trainers import Recipe, TrainerRows

TEXT_SETS = ("custom", "safe", "harmful")
_NEEDED = (*(f"{name}_texts" for name in TEXT_SETS), "selected_samples")
_ADAPTER_SETTINGS = (
    "rank", "lora_alpha", "target_modules", "learning_rate", "schedule", "warmup_fraction",
    "num_epochs", "num_steps", "batch_size", "micro_batch_size", "max_length", "seed",
)  # fmt: skip


class ExportOptions(NamedTuple):
    """What to export.

    Attributes:
        merge_dtype: None for no merged model, else as in `merge_adapter`.
        trainers: Names of `publishing.trainers.TRAINERS`.
        resample_factor: Copies per row on average; None leaves every row once.
        base_model: For the trainers' configurations, of a task without an adapter.
    """

    merge_dtype: str | None = None
    trainers: tuple[Literal["axolotl", "llamafactory", "trl"], ...] = ()
    resample_factor: float | None = None
    base_model: str | None = None


class _Base(NamedTuple):
    kind: Literal["hub", "directory", "demo"]
    path: str
    revision: str | None


class _Adapter(NamedTuple):
    """A task's adapter with exactly what it was made from."""

    stored: Stored
    base: _Base
    samples: Stored  # training_samples
    texts: Mapping[str, Stored]  # by role
    selected: Stored

    @property
    def directory(self) -> Path:
        return self.stored.directory / "adapter"

    @property
    def settings(self) -> dict[str, Any]:
        return self.stored.manifest["settings"]["finetuning"]


def export_task(
    home: Home,
    task: str,
    out: Path,
    options: ExportOptions,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the task's adapter with its card, and what the options ask for, to a folder.

    Returns:
        The export's manifest; `findings` are sentences that the user should read.

    Raises:
        InputError: the task lacks what is to be exported, or the folder holds other files.
    """
    from sot_pipeline.publishing.folder import fresh_folder, write_manifest

    current = _current(home, task)
    store = Store(home.store)
    adapter = _adapter(store, task, current.get("adapter"))
    if adapter is None and (options.merge_dtype or not options.trainers):
        raise InputError(
            f"task {task!r} has no adapter to export: run `sot finetune {task}` first, or export "
            "its purified rows with `--trainer`"
        )
    entries: dict[str, Any] = {"task": task, "version": __version__, "findings": []}
    with fresh_folder(out) as folder:
        if adapter is not None:
            facts = _card_facts(task, adapter, current.get("evaluation"))
            entries |= _write_adapter(folder, adapter, facts, options, entries["findings"], log)
        if options.trainers:
            entries |= _write_trainers(
                home, task, folder, current, adapter, options, entries["findings"], log
            )
        (folder / "README.md").write_text(_readme(task, entries, options), encoding="utf-8")
        manifest = write_manifest(folder, entries)
    return manifest | {"out": str(out.resolve())}


def _current(home: Home, task: str) -> dict[str, Stored]:
    home.read_task(task)  # a wrong name is the likelier mistake
    current = Store(home.store).current_of(task)
    missing = [name for name in _NEEDED if name not in current]
    if missing:
        raise InputError(
            f"task {task!r} has not been purified ({', '.join(missing)} missing): run "
            f"`sot purify --task {task}` first"
        )
    return current


def _adapter(store: Store, task: str, stored: Stored | None) -> _Adapter | None:
    if stored is None:
        return None
    inputs = stored.manifest["inputs"]
    samples = _version(store, task, "training_samples", inputs["training_samples"])
    lineage = samples.manifest["lineage"]
    names = [f"{role}_texts" for role in TEXT_SETS]
    texts = [_version(store, task, name, lineage[name]) for name in names]
    return _Adapter(
        stored,
        _base(_version(store, task, "aligned_base_model", inputs["aligned_base_model"])),
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


def _base(stored: Stored) -> _Base:
    document = stored.document
    if document["source"] == "demo":
        return _Base("demo", str(stored.directory / "model"), None)
    kind: Literal["hub", "directory"] = "hub" if document["source"] == "hub" else "directory"
    return _Base(kind, document["name"], document["revision"])


def _write_adapter(
    folder: Path,
    adapter: _Adapter,
    facts: "CardFacts",
    options: ExportOptions,
    findings: list[str],
    log: Callable[[str], None],
) -> dict[str, Any]:
    from sot_pipeline.publishing.model_card import model_card, serve_command

    shutil.copytree(adapter.directory, folder / "adapter")
    (folder / "adapter" / "README.md").write_text(model_card(facts), encoding="utf-8")
    if not facts.scores:
        findings.append(f"the card holds no scores: {facts.no_scores}")
    entries: dict[str, Any] = {
        "adapter": adapter.stored.data_version,
        "data_fingerprint": facts.data_fingerprint,
        "serve": serve_command(facts),
    }
    if options.merge_dtype is not None:
        from sot_pipeline.publishing.merge import merge_adapter

        log("merging base model and adapter")
        base = adapter.base
        merged = merge_adapter(
            base.path, adapter.directory, folder / "merged",
            base_revision=base.revision, dtype=options.merge_dtype,
        )._asdict()  # fmt: skip
        of_merged = dataclasses.replace(facts, merged=merged)
        (folder / "merged" / "README.md").write_text(model_card(of_merged), encoding="utf-8")
        entries["merged"] = merged
    return entries


def _card_facts(task: str, adapter: _Adapter, evaluation: Stored | None) -> "CardFacts":
    from sot_pipeline.finetuning.train import BETAS, MAX_GRADIENT_NORM
    from sot_pipeline.publishing.model_card import CardFacts
    from sot_pipeline.selection import effective_sample_size

    settings, samples = adapter.settings, adapter.samples.table()
    known = set(_ADAPTER_SETTINGS) | {"weighted"}
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
        selection=_shown(adapter.selected.document),
        rank=settings["rank"],
        lora=_shown({name: settings[name] for name in _ADAPTER_SETTINGS if name in settings})
        | {"optimiser": f"AdamW, betas {BETAS}, gradient norm at most {MAX_GRADIENT_NORM}"},
        further=_shown({name: v for name, v in settings.items() if name not in known}),
        training=_shown({n: v for n, v in adapter.stored.document.items() if n != "seed"}),
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
        for row in table.filter(method="sot").iter_rows(named=True)
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


def _shown(values: Mapping[str, Any]) -> dict[str, str]:
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


def _write_trainers(
    home: Home,
    task: str,
    folder: Path,
    current: Mapping[str, Stored],
    adapter: _Adapter | None,
    options: ExportOptions,
    findings: list[str],
    log: Callable[[str], None],
) -> dict[str, Any]:
    from sot_pipeline.publishing.trainers import TRAINERS, write_trainer_folder

    table = _rows(current, adapter, findings)
    recipe = _recipe(home, task, current, adapter, options.base_model)
    rows = _trainer_rows(table, recipe.seed, options.resample_factor)
    tokenizer = _tokenizer(recipe, adapter)
    if tokenizer is None:
        findings.append(
            f"the tokenizer of {recipe.base_model} is not on this machine: special tokens that "
            "rows spell out were left as they are"
        )
    written = {}
    if "llamafactory" in options.trainers and tokenizer is not None and tokenizer.repeats_start:
        findings.append(
            "LLaMA-Factory would begin every turn with the start token of this tokenizer: name one "
            "of its own templates (`template:` in llamafactory.yaml)"
        )
    for name in options.trainers:
        log(f"writing the folder for {TRAINERS[name].title}")
        folder_written = write_trainer_folder(name, folder / name, recipe, rows, tokenizer)
        written[name] = folder_written._asdict() | {"checked_with": TRAINERS[name].version}
        if folder_written.num_left_out:
            findings.append(
                f"{folder_written.num_left_out:,} rows are not in {name}/: "
                f"{TRAINERS[name].title} cannot read their order of turns"
            )
    return {"trainers": written, "resampling": rows.note}


def _rows(
    current: Mapping[str, Stored], adapter: _Adapter | None, findings: list[str]
) -> pl.DataFrame:
    """The rows and weights of the newest selection; what the adapter learnt from, if that is it."""
    selected = current["selected_samples"]
    samples = current.get("training_samples")
    if samples is not None:
        if samples.manifest["inputs"].get("selected_samples") == selected.data_version:
            return samples.table()
        if adapter is not None:
            findings.append(
                "the adapter was trained on an earlier selection; the trainers' folders hold the "
                "latest one"
            )
    return selected.table()


def _recipe(
    home: Home,
    task: str,
    current: Mapping[str, Stored],
    adapter: _Adapter | None,
    base_model: str | None,
) -> "Recipe":
    from sot_pipeline.finetuning.train import BETAS, MAX_GRADIENT_NORM
    from sot_pipeline.publishing.trainers import Recipe

    own = home.settings(task)[0].finetuning.model_dump(mode="json")
    settings = FinetuningSettings().model_dump(mode="json") | (adapter.settings if adapter else own)
    base = _base_for_trainers(task, current, adapter, base_model)
    known = {name: settings[name] for name in _ADAPTER_SETTINGS}
    further = {n: v for n, v in settings.items() if n not in {*known, "weighted"}}
    known["target_modules"] = tuple(known["target_modules"])
    return Recipe(
        base.path, base.revision, **known, betas=BETAS, max_gradient_norm=MAX_GRADIENT_NORM,
        further=_shown(further),
    )  # fmt: skip


def _base_for_trainers(
    task: str, current: Mapping[str, Stored], adapter: _Adapter | None, named: str | None
) -> _Base:
    if adapter is not None:
        if named is not None:
            raise InputError(
                f"--base-model is for tasks without an adapter; that of task {task!r} belongs to "
                f"{adapter.base.path}"
            )
        return adapter.base
    if named is not None:
        return _Base("directory" if Path(named).is_dir() else "hub", named, None)
    stored = current.get("aligned_base_model")
    if stored is None or stored.document["source"] == "none":
        raise InputError(
            f"task {task!r} names no model to fine-tune, and a trainer's configuration needs one: "
            "give --base-model (a Hugging Face id or a directory)"
        )
    return _base(stored)


def _trainer_rows(table: pl.DataFrame, seed: int, factor: float | None) -> "TrainerRows":
    from sot_pipeline.publishing.resampling import resampled_counts
    from sot_pipeline.publishing.trainers import TrainerRows
    from sot_pipeline.selection import effective_sample_size

    ids = table["sample_id"].to_list()
    conversations = [json.loads(messages) for messages in table["messages"]]
    if factor is None:
        return TrainerRows(ids, conversations, [1] * len(ids))
    weights = table["sample_weight"].to_numpy()
    counts = resampled_counts(weights, factor=factor, seed=seed)
    note = {
        "factor": factor,
        "seed": seed,
        "num_rows": len(ids),
        "num_copies": int(counts.sum()),
        "num_lost": int(np.sum((counts == 0) & (weights > 0))),
        "effective_before": effective_sample_size(weights),
        "effective_after": effective_sample_size(counts),
    }
    return TrainerRows(ids, conversations, counts.tolist(), factor, note)


def _tokenizer(recipe: "Recipe", adapter: _Adapter | None) -> "TokenizerFacts | None":
    """What the tokenizer says, if it is on this machine."""
    from transformers import AutoTokenizer

    from sot_pipeline.publishing.chat_rows import tokenizer_facts

    source = str(adapter.directory) if adapter is not None else recipe.base_model
    revision = None if adapter is not None else recipe.base_revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision or "main", local_files_only=True
        )
    except (OSError, ValueError):
        return None
    return tokenizer_facts(tokenizer)


def _readme(task: str, entries: Mapping[str, Any], options: ExportOptions) -> str:
    from sot_pipeline.publishing.markdown import rendered

    return rendered("export_readme.md.jinja", task=task, entries=entries, options=options)
