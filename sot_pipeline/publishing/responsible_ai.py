"""The responsible-AI fields of a set's Croissant metadata (RAI 1.0).

Names: docs.mlcommons.org/croissant/docs/croissant-rai-spec.html.
"""

from typing import Any

from sot_pipeline.publishing.data_facts import PAPER, DataFacts, kind_name
from sot_pipeline.publishing.markdown import visible
from sot_pipeline.publishing.removal import limit_of_the_cut


def responsible_ai(facts: DataFacts) -> dict[str, Any]:
    """Only what is known; fields that nobody can fill from the evidence are not there."""
    personal = facts.personal
    fields: dict[str, Any] = {
        "rai:dataCollection": _collection(facts),
        "rai:dataPreprocessingProtocol": _preprocessing(facts),
        "rai:dataLimitations": [
            limit_of_the_cut(facts),
            (
                "Removal goes by the harmful reference: harm unlike it, and harm in "
                "languages that the encoder does not know, can stay."
            ),
            "Harmless rows that look like harm can have been removed.",
            "The truth, quality, language and origin of the rows were not examined.",
            *(f"A check found: {visible(finding)}" for finding in facts.findings),
        ],
        "rai:dataBiases": [
            (
                "Which rows were removed follows the two reference sets: a bias in them, or rows whose "
                "subject they lack, is a bias of the selection."
            )
        ],
        "rai:dataUseCases": [
            (
                "Supervised fine-tuning of a language model that is to keep its safety. Not meant as a "
                "benchmark, and not as a labelled set of harmful rows."
            )
        ],
        "rai:dataSocialImpact": (
            "Meant to lower the harm that a fine-tuned model does. It is evidence, no guarantee: a "
            "model that learns from it has to be tested for its use."
        ),
        "rai:personalSensitiveInformation": _personal_data(facts),
        "rai:machineAnnotationTools": [
            (
                f"sot_pipeline {facts.version} (push-pull optimal transport, {PAPER}), embeddings "
                f"of {visible(facts.encoder)}"
            )
        ],
    }
    if personal.redacted:
        fields["rai:dataManipulationProtocol"] = (
            "Personal data that patterns found in text values was replaced by its kind."
        )
    if facts.num_rejected:
        fields["rai:dataCollectionMissingData"] = (
            f"{facts.num_rejected:,} rows of the input could not be read and are not here: "
            + ", ".join(f"{visible(r)} {n:,}" for r, n in facts.rejected_reasons.items())
        )
    if facts.decisions:
        fields["rai:dataAnnotationProtocol"] = [
            "Reviewers overruled the cut by hand: "
            + ", ".join(f"{visible(name)} {count:,}" for name, count in facts.decisions.items())
        ]
    return fields


def _collection(facts: DataFacts) -> str:
    sources = "; ".join(
        f"{visible(source.shown)} ({source.num_read:,} rows, sha256 {source.sha256})"
        for source in facts.of_role("custom")
    )
    return f"Rows were read from files, none was collected or written anew: {sources}."


def _preprocessing(facts: DataFacts) -> list[str]:
    method = ", ".join(f"{visible(n)} {visible(v)}" for n, v in facts.method.items())
    counted = {role: sum(s.num_read for s in facts.of_role(role)) for role in ("safe", "harmful")}
    steps = [
        (
            f"Each row was weighed by push-pull optimal transport ({PAPER}) against a safe reference of "
            f"{counted['safe']:,} rows and a harmful one of {counted['harmful']:,}."
        ),
        f"The cut: {method}. {facts.num_removed:,} rows were removed.",
    ]
    if facts.personal.redacted:
        return [*steps, "Personal data found by patterns was replaced by its kind."]
    return [*steps, "Kept rows are as the source wrote them."]


def _personal_data(facts: DataFacts) -> list[str]:
    personal = facts.personal
    if not personal.num_found:
        return ["Patterns found no personal data in the text of the kept rows; they miss names."]
    state = "replaced in the files" if personal.redacted else "still in the files"
    return [
        f"{visible(kind_name(kind))}: {count:,} found by patterns, {state}"
        for kind, count in personal.found.items()
        if count
    ]
