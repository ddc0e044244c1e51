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
from sot_pipeline.defs.adapter_facts import (
    ADAPTER_SETTINGS,
    TEXT_SETS,
    Adapter,
    Base,
    adapter_of,
    base_of,
    card_facts,
    shown,
)
from sot_pipeline.defs.documents import DocumentOptions, write_data, write_documents
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.provenance import predicate_of
from sot_pipeline.defs.scoring import purified_assets
from sot_pipeline.defs.settings import FinetuningSettings
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.errors import InputError

if TYPE_CHECKING:
    from sot_pipeline.publishing.chat_rows import TokenizerFacts
    from sot_pipeline.publishing.model_card import CardFacts
    from sot_pipeline.publishing.trainer_configs import TrainerRecipe
    from sot_pipeline.publishing.trainers import TrainerRows

_LEARNT_BEFORE = (
    "personal data was replaced in the rows of this folder; the adapter had learnt from the rows as "
    "they were"
)
_NEEDED = (*(f"{name}_texts" for name in TEXT_SETS), "selected_samples")


class ExportOptions(NamedTuple):
    """What to export beside the purified rows and their documents.

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
    documents: DocumentOptions = DocumentOptions()


def export_task(
    home: Home,
    task: str,
    out: Path,
    options: ExportOptions,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the task's purified rows with their documents, its adapter with its card, and what the
    options ask for, to a folder.

    Returns:
        What was written, with size and sha256 of every file; `findings` are sentences that the
        user should read.

    Raises:
        InputError: the task lacks what is to be exported, or the folder holds other files.
    """
    from sot_pipeline.publishing.folder import fresh_folder
    from sot_pipeline.publishing.provenance import write_provenance

    current = _current(home, task)
    adapter = adapter_of(Store(home.store), task, current.get("adapter"))
    if adapter is None and options.merge_dtype:
        raise InputError(f"task {task!r} has no adapter to merge: run `sot finetune {task}` first")
    entries: dict[str, Any] = {"task": task, "version": __version__}
    findings: list[str] = []
    with fresh_folder(out) as folder:
        if adapter is not None:
            facts = card_facts(task, adapter, current.get("evaluation"))
            facts = dataclasses.replace(facts, data_documents="..")
            entries |= _write_adapter(folder, adapter, facts, options, findings, log)
        if options.trainers:
            entries |= _write_trainers(home, task, folder, current, adapter, options, findings, log)
        data = write_data(home, task, folder, options.documents, log)
        findings += data.findings
        trained = adapter is not None and (
            adapter.selected.data_version == data.purified.selected.data_version
        )
        if adapter is not None and options.documents.redact_pii and data.facts.personal.num_found:
            findings.append(_LEARNT_BEFORE)
        base = _public_name(adapter) if adapter is not None and trained else None
        set_facts = dataclasses.replace(data.facts, trained=trained, base_model=base)
        write_documents(folder, set_facts, _contents(entries, options))
        predicate = predicate_of(
            home, task, set_facts, _roots(data.purified.export, adapter, current),
            who=options.documents.user, with_paths=not options.documents.anonymous,
            export=_told(entries, options) | {"findings": findings},
        )  # fmt: skip
        statement = write_provenance(folder, predicate)
    files = {
        name: {"bytes": size, "sha256": sha256}
        for name, (size, sha256) in statement.sizes_and_hashes.items()
    }
    counts = statement.predicate.sot_data.model_dump()
    return entries | {
        "findings": findings, "data": counts, "files": files, "out": str(out.resolve())
    }  # fmt: skip


def _public_name(adapter: Adapter) -> str | None:
    base = adapter.base
    if base.kind != "hub":
        return None
    return base.path if base.revision is None else f"{base.path}, revision {base.revision}"


def _told(entries: Mapping[str, Any], options: ExportOptions) -> dict[str, Any]:
    """Without the command that names where the base model lies, if no folder is to be told."""
    hidden = {"serve"} if options.documents.anonymous else set()
    return {name: value for name, value in entries.items() if name not in hidden}


def _roots(export: Stored, adapter: Adapter | None, current: Mapping[str, Stored]) -> list[Stored]:
    evaluation = current.get("evaluation")
    made = [export] if adapter is None else [export, adapter.stored]
    of_adapter = (
        adapter is not None
        and evaluation is not None
        and evaluation.manifest["inputs"].get("adapter") == adapter.stored.data_version
    )
    return [*made, evaluation] if of_adapter and evaluation is not None else made


def _current(home: Home, task: str) -> dict[str, Stored]:
    purified_assets(home, task, _NEEDED)  # says what is missing
    return Store(home.store).current_of(task)


def _write_adapter(
    folder: Path,
    adapter: Adapter,
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


def _write_trainers(
    home: Home,
    task: str,
    folder: Path,
    current: Mapping[str, Stored],
    adapter: Adapter | None,
    options: ExportOptions,
    findings: list[str],
    log: Callable[[str], None],
) -> dict[str, Any]:
    from sot_pipeline.publishing.trainers import TRAINERS, write_trainer_folder

    table = _rows(current, adapter, findings)
    recipe = _recipe(home, task, current, adapter, options.base_model)
    redact = options.documents.redact_pii
    rows = _trainer_rows(table, recipe.seed, options.resample_factor, redact=redact)
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
    current: Mapping[str, Stored], adapter: Adapter | None, findings: list[str]
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
    adapter: Adapter | None,
    base_model: str | None,
) -> "TrainerRecipe":
    from sot_pipeline.finetuning.loop import BETAS
    from sot_pipeline.publishing.trainer_configs import TrainerRecipe

    own = home.settings(task)[0].finetuning.model_dump(mode="json")
    settings = FinetuningSettings().model_dump(mode="json") | (adapter.settings if adapter else own)
    base = _base_for_trainers(task, current, adapter, base_model)
    known = {name: settings[name] for name in ADAPTER_SETTINGS}
    further = {
        n: v for n, v in settings.items() if n not in {*known, "weighted", "max_gradient_norm"}
    }
    if adapter is not None:
        further = adapter.defence | further
    else:
        chosen = home.settings(task)[0].defence
        further = {"defence": chosen.name} | further
    known["target_modules"] = tuple(known["target_modules"])
    return TrainerRecipe(
        base.path, base.revision, **known, betas=BETAS, max_gradient_norm=settings["max_gradient_norm"],
        further=shown(further),
    )  # fmt: skip


def _base_for_trainers(
    task: str, current: Mapping[str, Stored], adapter: Adapter | None, named: str | None
) -> Base:
    if adapter is not None:
        if named is not None:
            raise InputError(
                f"--base-model is for tasks without an adapter; that of task {task!r} belongs to "
                f"{adapter.base.path}"
            )
        return adapter.base
    if named is not None:
        return Base("directory" if Path(named).is_dir() else "hub", named, None)
    stored = current.get("aligned_base_model")
    if stored is None or stored.document["source"] == "none":
        raise InputError(
            f"task {task!r} names no model to fine-tune, and a trainer's configuration needs one: "
            "give --base-model (a Hugging Face id or a directory)"
        )
    return base_of(stored)


def _trainer_rows(
    table: pl.DataFrame, seed: int, factor: float | None, *, redact: bool
) -> "TrainerRows":
    from sot_pipeline import pii
    from sot_pipeline.publishing.resampling import resampled_counts
    from sot_pipeline.publishing.trainers import TrainerRows
    from sot_pipeline.selection import effective_sample_size

    ids = table["sample_id"].to_list()
    conversations = [json.loads(messages) for messages in table["messages"]]
    if redact:
        conversations = [
            [turn | {"content": pii.redact(turn["content"])} for turn in turns]
            for turns in conversations
        ]
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


def _tokenizer(recipe: "TrainerRecipe", adapter: Adapter | None) -> "TokenizerFacts | None":
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


def _contents(entries: Mapping[str, Any], options: ExportOptions) -> list[tuple[str, str]]:
    """What lies in the folder beside the rows and their documents."""
    found = []
    if "adapter" in entries:
        found.append(("adapter/", "LoRA adapter with tokenizer and model card"))
    if "merged" in entries:
        dtype = entries["merged"]["dtype"]
        found.append(("merged/", f"base model and adapter as one model in {dtype}"))
    what = "the rows and a configuration for this trainer; see its README"
    return [*found, *((f"{name}/", what) for name in options.trainers)]
