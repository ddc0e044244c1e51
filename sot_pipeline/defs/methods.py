"""What a training is called, SELECTION[+DEFENCE], and which assets each of them reads."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from sot_pipeline.errors import InputError, nearest

# what `purify` does to the rows, and parts of it
SOT = ("sot", "sot_cut", "sot_reweight")
# whose log-weights are an asset of their own, NAME_weights
RIVALS = (
    "sot_balanced", "sot_pull", "sot_push", "sot_one_shot",
    "logistic_regression", "knn", "centroid", "dsir", "saft", "larf", "seal", "toss",
    "alpagasus", "guard",
)  # fmt: skip
WITHOUT_SCORES = ("sft_clean", "sft", "random")
SELECTIONS: tuple[str, ...] = (*WITHOUT_SCORES, *SOT, *RIVALS)
DefenceName = Literal[
    "none", "safe_instr", "safe_reference", "spf", "safegrad", "sbr", "spag", "refusalguard_reimpl"
]
# the assets that hold what each learns from; without a defence none of them is computed
READS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "safe_instr": ("safety_demonstrations",),
    "safe_reference": ("safe_texts",),
    "spf": ("safety_demonstrations",),
    "safegrad": ("safety_demonstrations",),
    "sbr": ("safety_demonstrations",),
    "spag": ("safety_demonstrations",),
    "refusalguard_reimpl": ("safety_demonstrations", "harmless_prompts"),
}


class Method(NamedTuple):
    """Which rows are trained on, and what keeps the model safe meanwhile."""

    selection: str
    defence: str = "none"

    @classmethod
    def parse(cls, text: str) -> "Method":
        """From SELECTION or SELECTION+DEFENCE.

        Raises:
            InputError: naming the nearest known name.
        """
        selection, plus, defence = text.partition("+")
        if selection not in SELECTIONS:
            raise InputError(
                f"{text}: no selection is called {selection!r}; {nearest(selection, SELECTIONS)}"
            )
        if not plus:
            return cls(selection)
        if "+" in defence:
            raise InputError(
                f"{text}: names several defences; expected SELECTION or SELECTION+DEFENCE"
            )
        if defence not in READS:
            raise InputError(
                f"{text}: no defence is called {defence!r}; {nearest(defence, list(READS))}"
            )
        return cls(selection, defence)

    def __str__(self) -> str:
        return self.selection if self.defence == "none" else f"{self.selection}+{self.defence}"


def read_by(defences: Iterable[str]) -> set[str]:
    """The assets that these defences learn from."""
    return {asset for defence in defences for asset in READS[defence]}


def weights_asset(rival: str) -> str:
    """The asset that holds a rival's log-weights."""
    return f"{rival}_weights"
