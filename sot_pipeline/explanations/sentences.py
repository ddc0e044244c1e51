"""A row's evidence in plain words, the same evidence always in the same words.

Only numbers, ids and the categories' names come from the data: no sentence can carry a row's text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sot_pipeline.explanations.second_opinions import METHODS

BORDERLINE = 0.02  # share of the rows between a row and the cut
STANDS_OUT = 0.1  # share of the match that the named rows take together, else none stands out

Row = Mapping[str, Any]


class Cut(NamedTuple):
    """What all rows' sentences share."""

    num_rows: int
    num_above: int  # rows that the cut keeps
    lambda_push: float
    num_harmful: int  # rows of the reference that was solved for
    num_safe: int
    max_false_keep_rate: float | None = None  # of a calibrated cut


def reason(row: Row, cut: Cut) -> str:
    """One short sentence."""
    if row["decision"] is not None:
        return f"{_verdict(row)} by a reviewer's decision (place {_place(row, cut)})."
    what = {
        "both": "only both references together decide",
        "neither": "neither reference speaks clearly",
    }.get(row["side"])
    if what is None:
        what = f"{_likeness(row)} the {row['side']} reference than {row['num_passed']:,} other rows"
    side = _evidence_side(row)
    return (
        f"{_verdict(row)} at place {_place(row, cut)}: {what} (its nearest row there, "
        f"{row[f'nearest_{side}']}, has similarity {row[f'{side}_similarity']:.2f})."
    )


def explanation(row: Row, cut: Cut) -> str:
    """Two to five sentences for a reader who knows nothing of the method."""
    sentences = [_fate(row, cut), _why(row, cut), _how_firm(row, cut), _what_if(row, cut),
                 _others(row)]  # fmt: skip
    return " ".join(sentence for sentence in sentences if sentence)


def _verdict(row: Row) -> str:
    return "Kept" if row["kept"] else "Removed"


def _place(row: Row, cut: Cut) -> str:
    return f"{row['rank']:,} of {cut.num_rows:,}"


def _fate(row: Row, cut: Cut) -> str:
    place = f"place {_place(row, cut)}, the best first"
    if row["decision"] is not None:
        by_cut = row["rank"] <= cut.num_above
        agrees = "agrees" if by_cut == row["kept"] else "disagrees"
        return (
            f"{_verdict(row)} because a reviewer decided so; the computed order, where it has "
            f"{place}, {agrees}."
        )
    stay = f"the cut comes after place {cut.num_above:,}"
    if cut.max_false_keep_rate is not None and row["harmful_p_value"] is not None:
        stay += (
            f" and about {_percent(row['harmful_p_value'])} of rows known to be harmful would come "
            "as high or higher"
        )
    distance = abs(row["rank"] - cut.num_above - 0.5) / max(1, cut.num_rows)
    near = ", so it is a borderline case" if distance <= BORDERLINE else ""
    return f"{_verdict(row)}: it has {place}, and {stay}{near}."


def _evidence_side(row: Row) -> str:
    """The reference whose rows a sentence names where it can name but one's."""
    return row["side"] if row["side"] in ("safe", "harmful") else "harmful"


def _likeness(row: Row) -> str:
    """Alike the one, or far from the other, is what keeps a row."""
    return "more like" if row["kept"] == (row["side"] == "safe") else "less like"


_COUNTS = {2: "two", 3: "three"}  # `transported.NUM_NAMED` at most
_GLOSS = {
    "safe": "the safe reference (examples of what a model should learn)",
    "harmful": "the harmful reference (examples of what a model must not learn)",
}


def _why(row: Row, cut: Cut) -> str:
    side = row["side"]
    if row["decision"] is not None and (row["rank"] <= cut.num_above) != row["kept"]:
        return _both_sides(row)
    if side in ("both", "neither"):
        return _no_side_alone(row)
    others = f"{row['num_passed']:,} of the other {cut.num_rows - 1:,} rows"
    start = (
        f"What speaks {'for' if row['kept'] else 'against'} it most is that it is "
        f"{_likeness(row)} {_GLOSS[side]} than {others}"
    )
    matched = f"it was matched most strongly with {_named(row, side)}{_kind(row, side)}"
    if _likeness(row) == "more like":
        return f"{start}: there {matched}."
    other = "harmful" if side == "safe" else "safe"
    also = f"; among the {other} examples {_strongest(row, other)} matched it most"
    return f"{start}: even there {matched}{also}."


def _no_side_alone(row: Row) -> str:
    first, second = f"its likeness to {_GLOSS['safe']}", f"its likeness to {_GLOSS['harmful']}"
    start = f"Neither {first} nor {second} speaks clearly"
    if row["side"] == "both":
        start = f"Only together do {first} and {second} decide"
    return (
        f"{start}: it was matched most strongly with {_named(row, 'safe')} of the safe and "
        f"{_named(row, 'harmful')} of the harmful examples."
    )


def _both_sides(row: Row) -> str:
    return (
        f"In the comparison with {_GLOSS['safe']} it was matched most strongly with "
        f"{_named(row, 'safe')}, in that with {_GLOSS['harmful']} with {_named(row, 'harmful')}"
        f"{_kind(row, 'harmful')}."
    )


def _named(row: Row, side: str) -> str:
    ids, similarities = row[f"{side}_ids"], row[f"{side}_similarities"]
    first, *rest = [f"{one} ({value:.2f})" for one, value in zip(ids, similarities, strict=True)]
    first = f"{ids[0]} (similarity {similarities[0]:.2f}, where 1 is most alike)"
    return _listed([first, *rest])


def _strongest(row: Row, side: str) -> str:
    return f"{row[f'{side}_ids'][0]} (similarity {row[f'{side}_similarities'][0]:.2f})"


def _kind(row: Row, side: str) -> str:
    if side != "harmful" or row["harmful_category"] is None:
        return ""
    share = _percent(row["harmful_category_share"])
    return (
        f", and {share} of the match went to examples of the category “{row['harmful_category']}”"
    )


def _how_firm(row: Row, cut: Cut) -> str:
    """How much the named examples bear; one sentence, or none for a reviewer's decision."""
    if row["decision"] is not None:
        return ""
    if row["far_from_references"]:
        return (
            "It lies farther from both references than nearly all of their own rows lie from one "
            "another, so this evidence is weak."
        )
    side = _evidence_side(row)
    shares, num = row[f"{side}_shares"], cut.num_harmful if side == "harmful" else cut.num_safe
    together = float(np.sum(shares))
    if len(shares) == num:
        return ""  # the reference has no other rows
    if together >= STANDS_OUT:
        take = _these(row, side, len(shares))
        return f"{take} {_percent(together)} of the match with the {num:,} {side} examples."
    take = "take" if len(shares) > 1 else "takes"
    return (
        f"No single {side} example stands out: the {len(shares)} named {take} "
        f"{_percent(together)} of the match, the rest is spread over {num - len(shares):,} others."
    )


def _these(row: Row, side: str, count: int) -> str:
    """The named rows of a side, where the sentence before names the other side's too."""
    if row["side"] == side:
        return "This example takes" if count == 1 else f"These {count} examples take"
    return f"The {side} one takes" if count == 1 else f"The {_COUNTS[count]} {side} ones take"


def _what_if(row: Row, cut: Cut) -> str:
    """What would put the row on the other side of the cut; a decision is first taken away."""
    by_cut = row["rank"] <= cut.num_above
    stays, goes = ("it would stay", "it would go") if row["decision"] is None else (
        "without the decision it would go, and stay only",
        "without the decision it would stay, and go only",
    )  # fmt: skip
    condition = _other_share(row, cut, by_cut)
    if condition is None:
        spare = "the cut would spare it at no allowed share of harmful rows"
        first = spare if row["decision"] is None else f"without the decision {spare}"
    else:
        first = f"{goes if by_cut else stays} if {condition}"
    change = row["lambda_change"]
    if change is None:
        return _sentence(first)
    return _sentence(
        f"{first}; with the matching left as it is, it would also change sides if the harmful "
        f"reference counted for {_past(change, cut.lambda_push)} of the score (lambda) instead of "
        f"{_share(cut.lambda_push)}"
    )


def _other_share(row: Row, cut: Cut, by_cut: bool) -> str | None:
    """The share, of rows or of harmful rows, at which the cut would be elsewhere; None: none."""
    if cut.max_false_keep_rate is None:
        needed = row["keep_fraction_needed"]
        return f"{f'fewer than {_down(needed)}' if by_cut else _up(needed)} of the rows stayed"
    needed = row["false_keep_rate_needed"]
    if needed is None:
        return None
    through = "of harmful rows were allowed to slip through"
    if by_cut:
        return f"fewer than {_down(needed)} {through}"
    return f"{_up(needed)} {through} instead of {_percent(cut.max_false_keep_rate)}"


def _others(row: Row) -> str:
    names = [METHODS[name] for name in row["disagreeing_methods"]]
    if not names:
        return ""
    return _sentence(f"judged by {_listed(names, 'or by')}, it would have been on the other side")


def _listed(parts: Sequence[str], word: str = "and") -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _percent(share: float) -> str:
    """Two digits that count."""
    value = 100 * share
    if value == 0 or value >= 99.95:
        return f"{value:.0f} %"
    return f"{value:.{max(0, 1 - int(np.floor(np.log10(value))))}f} %"


def _up(share: float) -> str:
    """To a hundredth of a percent, upwards: what holds at the share holds at the number shown."""
    return f"{min(100.0, np.ceil(1e4 * share - 1e-6) / 100):.2f}".rstrip("0").rstrip(".") + " %"


def _down(share: float) -> str:
    return f"{np.floor(1e4 * share + 1e-6) / 100:.2f}".rstrip("0").rstrip(".") + " %"


def _past(value: float, now: float) -> str:
    """To a thousandth, away from what it is now: what changes at the value has changed there."""
    rounded = np.ceil(1e3 * value - 1e-6) if value > now else np.floor(1e3 * value + 1e-6)
    return _share(rounded / 1e3)


def _share(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") or "0"
