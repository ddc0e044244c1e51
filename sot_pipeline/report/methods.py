"""What the methods of a results table are: SELECTION, or SELECTION+DEFENCE."""

from collections.abc import Iterable
from typing import NamedTuple

SELECTIONS = {  # in reading order
    "base": "before fine-tuning",
    "sft_clean": "the clean rows alone, where they are known",
    "sft": "all rows",
    "random": "as many rows dropped at random",
    "dsir": "DSIR: words likelier in the safe reference",
    "saft": "SAFT: off the leading directions of the hidden states",
    "larf": "LARF: hidden states nearer to safe than to harmful anchors",
    "seal": "SEAL: easy for a model that is fitted to the safe reference",
    "toss": "TOSS: all rows without the tokens nearest to a harmful model",
    "alpagasus": "AlpaGasus: answers that a judge finds helpful",
    "guard": "rows that a guard model finds harmless",
    "logistic_regression": "by a classifier of the two references",
    "knn": "nearer to safe than to harmful rows of the references",
    "centroid": "nearer to the mean safe than to the mean harmful row",
    "sot_pull": "pulled to the safe reference only",
    "sot_push": "pushed from the harmful reference only",
    "sot_balanced": "transport of the references' whole mass, as in the paper",
    "sot_one_shot": "by the potentials of equal weights, with no solve",
    "sot_reweight": "all rows with their learned weights, none removed",
    "sot_cut": "the purified rows, each with weight one",
    "sot": "the purified rows",
}
GIVEN_THE_TRUTH = ("base", "sft_clean")  # what the others are measured against


class Defence(NamedTuple):
    """`label`: its usual name; `meaning`: what it does to a training."""

    label: str
    meaning: str


DEFENCES = {
    "safe_instr": Defence(
        "SafeInstr",
        "harmful requests with the base model's refusals are mixed into the rows",
    ),
    "safe_reference": Defence(
        "safe reference", "a control: the rows of the safe reference are learnt too"
    ),
    "spf": Defence(
        "SPF", "what opposes the leading directions of the safety gradient leaves each step"
    ),
    "safegrad": Defence(
        "SafeGrad",
        "the task gradient loses its part against the alignment gradient, which is added",
    ),
    "sbr": Defence("SBR", "the last hidden state of a few harmful requests is held in place"),
    "spag": Defence(
        "SPAG", "after a step that raised the safety loss too far, a step back towards safety"
    ),
    "refusalguard_reimpl": Defence(
        "RefusalGuard (re-implementation)",
        "hidden states are held in place along directions that tell harmful from harmless "
        "requests. Written from the paper's description, whose loss, layers and constants are not "
        "public: these are not the authors' results",
    ),
}


def selection_of(method: str) -> str:
    return method.partition("+")[0]


def reading_order(methods: Iterable[str]) -> list[str]:
    """By selection, then by defence; what is not known comes last."""

    def place(method: str) -> tuple[int, int, str]:
        selection, _, defence = method.partition("+")
        return _index(SELECTIONS, selection), _index(("", *DEFENCES), defence), method

    return sorted(methods, key=place)


def described(method: str) -> str:
    """A few words; empty for a method that is not known."""
    selection, _, defence = method.partition("+")
    words = SELECTIONS.get(selection, "")
    known = words and defence in DEFENCES
    return f"{words}, with {DEFENCES[defence].label}" if known else words


def legend(methods: Iterable[str]) -> list[tuple[str, str]]:
    """(label, meaning) of every defence among the methods."""
    found = {method.partition("+")[2] for method in methods}
    return [
        (f"+{name}: {defence.label}", defence.meaning)
        for name, defence in DEFENCES.items()
        if name in found
    ]


def _index(known: Iterable[str], name: str) -> int:
    names = list(known)
    return names.index(name) if name in names else len(names)
