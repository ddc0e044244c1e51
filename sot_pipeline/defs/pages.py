"""What the page of each asset tells a reader who sees it for the first time.

`PAGES` holds the plain words; the docstring of the asset's function follows as the exact ones.
"""

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg

from sot_pipeline.defs.cached_asset import CachedAsset
from sot_pipeline.defs.methods import RIVALS, weights_asset

PAPER = "https://arxiv.org/abs/2601.07200"
# in the order of the pipeline: group -> what it answers
GROUPS: Mapping[str, str] = {
    "inputs": "What goes in: the rows, the two references, the model, a vector for each row",
    "transport": "How much weight each row gets (Eq. 5)",
    "purified": "Which rows stay, which go, why, and the files to take away",
    "adapter": "What is trained on the rows that stay, and how it scores",
    "comparison": "What other methods make of the same rows",
    "experiments": "The paper's experiments; each runs only when a person asks",
    "report": "Reports to open in a browser, and what the newest change did",
}


@dataclass(frozen=True)
class Page:
    """What an asset's page says beside its docstring.

    Attributes:
        plain: What the asset answers, in words for somebody who knows no optimal transport.
        paper: Where the paper has it, such as "Eq. 5".
        readme: The section of README that tells of it.
        leads: Whether it lies on the main path, from files to adapter. Reports do not: each
            reads nearly everything, and their arrows would hide the path.
    """

    plain: str
    paper: str | None = None
    readme: str = "How to"
    leads: bool = False


_RIVAL = Page(
    "Another way to tell which rows are good, for comparison. Empty unless the task's "
    "`comparison.methods` names it.",
    "§5, baselines",
    "Rivals",
)
_EXPERIMENT = Page(
    "One experiment of the paper on this task. It trains for long, so nothing starts it by "
    "itself: run the job of its name, or `sot experiment`.",
    "Table 3, A.8",
    "The paper's experiments",
)
EXPERIMENT_ASSETS = (
    "ablation", "lambda_sweep", "keep_sweep", "contamination_sweep", "embedder_swap",
)  # fmt: skip

PAGES: Mapping[str, Page] = {
    "custom_texts": Page(
        "The rows you want to fine-tune on, as read from your files. Some of them may be harmful: "
        "finding those is what everything after this is for.",
        "§3, D_custom",
        leads=True,
    ),
    "safe_texts": Page(
        "Rows that you trust. Your rows are pulled towards them.",
        "§3, D_safe",
        "When references change",
        leads=True,
    ),
    "harmful_texts": Page(
        "Examples of what must not be learnt. Your rows are pushed away from them.",
        "§3, D_harmful",
        "When references change",
        leads=True,
    ),
    "rejected_rows": Page("Rows of your files that could not be read, and why."),
    "aligned_base_model": Page(
        "The safe model that is going to be fine-tuned. It is named here, not changed.",
        "§4",
        "Fine-tuning",
    ),
    "custom_embeddings": Page(
        "Each of your rows as a vector: rows that mean similar things lie close.", "§4", leads=True
    ),
    "safe_embeddings": Page("Each safe reference row as a vector.", "§4", leads=True),
    "harmful_embeddings": Page("Each harmful reference row as a vector.", "§4", leads=True),
    "cost_center": Page("The point from which the angle between two rows is measured."),
    "pull_cost": Page(
        "How far each of your rows is from each safe row.", "§3, pull cost", leads=True
    ),
    "push_cost": Page(
        "How far each of your rows is from each harmful row.", "§3, push cost", leads=True
    ),
    "sample_weights": Page(
        "How much each of your rows deserves to be learnt from. Rows like the safe reference get "
        "a high weight, rows like the harmful one a low weight. The checks below say whether the "
        "numbers can be trusted.",
        "Eq. 5, 6",
        leads=True,
    ),
    "calibration": Page(
        "What rows that are known to be harmful score, so that the cut can promise how many slip "
        "through. Computed only with `selection.method: calibrated`."
    ),
    "review_decisions": Page(
        "What people decided about single rows (`sot review`): keep forces a row to stay, drop "
        "forces it out. Empty until somebody decides.",
    ),
    "selected_samples": Page(
        "The rows that stay, with the weight that each has in fine-tuning.", "Eq. 7", leads=True
    ),
    "explanations": Page(
        "For every row: does it stay, at which rank, and which reference rows decided that."
    ),
    "embedding_map": Page("Where every row lies next to the others, to draw the reports' map."),
    "reference_coverage": Page(
        "Rows of yours that neither reference is anywhere near, so that nothing can be said of "
        "them with confidence."
    ),
    "removed_samples": Page("The rows that go, the worst first, each with its reason."),
    "purified_export": Page(
        "Your file without the removed rows, in its own format, and a ledger of every row. "
        "`folder` below says where; `sot purify --out` copies them.",
        readme="Take it elsewhere",
        leads=True,
    ),
    "training_samples": Page(
        "The rows that the adapter learns from: the selection, or the earlier one while hardly "
        "anything changed.",
        "Eq. 7",
        "When references change",
        leads=True,
    ),
    "safety_demonstrations": Page(
        "Refusals that a training-time defence learns from; empty without such a defence.",
        readme="Fine-tuning",
    ),
    "harmless_prompts": Page(
        "Harmless questions that a training-time defence learns from; empty without such a defence.",
        readme="Fine-tuning",
    ),
    "adapter": Page(
        "The fine-tuned LoRA adapter. The table is its training log, a row per step.",
        "§4, weighted SFT",
        "Fine-tuning",
        leads=True,
    ),
    "evaluation": Page(
        "How harmful, how helpful and how accurate the model is before and after fine-tuning.",
        "§5",
        "Fine-tuning",
        leads=True,
    ),
    **{weights_asset(name): _RIVAL for name in RIVALS},
    "compared_selections": Page("Which rows each method would keep.", "§5", "Rivals"),
    "selection_quality": Page(
        "Where it is known which rows are harmful: how many of them each method finds.",
        "§5",
        "Rivals",
    ),
    "comparison": Page(
        "The same fine-tuning on the rows of each method, and how each model then scores.",
        "§5",
        "Rivals",
    ),
    **dict.fromkeys(EXPERIMENT_ASSETS, _EXPERIMENT),
    "purification_report": Page(
        "The report to open first: what was removed and why, before anything is trained. The "
        "link is the first line of the metadata below.",
    ),
    "safety_report": Page(
        "The whole story with the verdict: what was removed, and what fine-tuning did to safety "
        "and usefulness. The link is the first line of the metadata below.",
        "§5",
        "Fine-tuning",
    ),
    "purification_changes": Page(
        "What the newest change of rows, references or settings did: which rows changed sides, "
        "and because of which reference rows.",
        readme="When references change",
    ),
    "custom_file": Page(
        "Your own file or files of fine-tuning rows, on disk or fetched. A change here starts a "
        "run of what depends on it.",
        leads=True,
    ),
    "safe_file": Page(
        "The file or files of the safe reference. A change here starts a run of what depends on "
        "it.",
        readme="When references change",
        leads=True,
    ),
    "review_file": Page(
        "What reviewers decided, on disk. A change here starts a run of what depends on it."
    ),
    "harmful_file": Page(
        "The file or files of the harmful reference. A change here starts a run of what depends "
        "on it.",
        readme="When references change",
        leads=True,
    ),
}


MAIN_PATH = "/asset-groups~" + quote('tag:"path"="main"', safe="") + "/"


def group_address(group: str) -> str:
    """The lineage of one group, below the UI's own address.

    Not Dagster's page of the group, which draws every asset outside that has to do with it.
    """
    return "/asset-groups~" + quote(f'group:"{group}"', safe="") + "/"


def description(name: str, docstring: str) -> str:
    """Plain words, then the exact ones."""
    page = PAGES.get(name)
    return docstring if page is None else f"{page.plain}\n\n*Exactly:* {docstring}"


def definition_metadata(name: str, group: str) -> dict[str, Any]:
    """Where an asset belongs: its group's page, the paper, README."""
    page = PAGES.get(name)
    metadata: dict[str, Any] = {
        "lineage of its group": dg.MetadataValue.md(
            f"[{group}]({group_address(group)}): {GROUPS[group]}"
        )
    }
    if page is not None:
        metadata["README"] = page.readme
        if page.paper is not None:
            metadata["paper"] = dg.MetadataValue.md(f"[{page.paper}]({PAPER})")
    return metadata


def code_metadata(asset: CachedAsset) -> dict[str, Any]:
    """Where the asset's function is written, and which settings may change its result."""
    function = inspect.unwrap(asset.function)
    path, line = Path(function.__code__.co_filename), function.__code__.co_firstlineno
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # beta in Dagster 1.13
        reference = dg.LocalFileCodeReference(file_path=str(path), line_number=line)
        references = dg.CodeReferencesMetadataValue(code_references=[reference])
    return {
        "dagster/code_references": references,
        "settings that count": ", ".join(asset.blocks) or "none",
    }


def tags(name: str) -> dict[str, str]:
    """`path: main` marks the way from rows to report; filter by it where the graph is too wide."""
    page = PAGES.get(name)
    return {"path": "main" if page is not None and page.leads else "side"}


def job_description(sentence: str, assets: list[CachedAsset]) -> str:
    """What a job does, with links to the lineage of the groups that it brings up to date."""
    groups = {asset.group for asset in assets}
    links = " → ".join(f"[{group}]({group_address(group)})" for group in GROUPS if group in groups)
    return f"{sentence}\n\nIts parts: {links}"
