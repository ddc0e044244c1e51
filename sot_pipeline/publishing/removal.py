"""Why rows left a purified set, in sentences that hold for the cut and the reviews that were made."""

from sot_pipeline.publishing.data_facts import DataFacts


def why_removed(facts: DataFacts) -> str:
    """What the cut and the reviewers did, each counted apart. No sentence says of a cut at a share
    that its rows resemble harm: such a cut removes as many rows of a clean set."""
    by_cut = facts.num_removed - facts.num_dropped_by_reviewers
    said = [_by_cut(facts, by_cut)] if by_cut else ["The cut removed no row."]
    return " ".join([*said, *_by_reviewers(facts)])


def limit_of_the_cut(facts: DataFacts) -> str:
    """What the number of removed rows does not say."""
    if facts.max_false_keep_rate is None:
        return (
            f"How many rows the cut removes {_beforehand(facts)}, so that a clean set would lose as "
            "many: their number says nothing about how much harm there was."
        )
    return (
        f"That at most {_percent(facts.max_false_keep_rate)} of the harmful rows stay is said of harm "
        "like the harmful reference's; harm unlike it can stay."
    )


def _by_cut(facts: DataFacts, count: int) -> str:
    one = count == 1
    if facts.max_false_keep_rate is None:
        return (
            f"{_rows(count)} {'was' if one else 'were'} ranked lowest between the safe and the "
            f"harmful reference; the share of {_cut_share(facts)} was set beforehand, so that a "
            "clean set would lose as many."
        )
    return (
        f"{_rows(count)} {'resembles' if one else 'resemble'} the harmful reference more than the "
        "safe one, by a calibrated cut: of rows like the harmful reference at most "
        f"{_percent(facts.max_false_keep_rate)} are expected to stay."
    )


def _by_reviewers(facts: DataFacts) -> list[str]:
    dropped, kept = facts.num_dropped_by_reviewers, facts.num_kept_by_reviewers
    said = []
    if dropped:
        said.append(f"Reviewers removed {_rows(dropped)} that the cut would have kept.")
    if kept:
        said.append(f"Reviewers kept {_rows(kept)} that the cut would have removed.")
    return said


def _beforehand(facts: DataFacts) -> str:
    return f"was set beforehand (a share of {_cut_share(facts)})"


def _cut_share(facts: DataFacts) -> str:
    """Of the readable rows, what the cut by itself removes."""
    cut = facts.num_removed - facts.num_dropped_by_reviewers + facts.num_kept_by_reviewers
    return _percent(cut / (facts.num_kept + facts.num_removed))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
