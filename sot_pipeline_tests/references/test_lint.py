"""The linter of references: planted faults are found where they are, clean sets have none."""

import tracemalloc

import numpy as np
import polars as pl
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.references import lint as module
from sot_pipeline.references.findings import ROW_SCHEMA, TextSet
from sot_pipeline.references.lint import Lint, lint

TOPICS, DIMENSIONS = 6, 48
SAFE, HARMFUL = 0, TOPICS  # the first topic of a kind


def text_set(name: str, num_rows: int, first_topic: int, *, seed: int, topics=TOPICS) -> TextSet:
    """Rows about some topics, each topic a direction of its own."""
    rng = np.random.default_rng(seed)
    topic = first_topic + np.arange(num_rows) % topics
    vectors = np.eye(DIMENSIONS)[topic] + rng.normal(scale=0.14, size=(num_rows, DIMENSIONS))
    table = pl.DataFrame(
        {
            "sample_id": [f"{name}{row}" for row in range(num_rows)],
            "file": [f"{name}.jsonl"] * num_rows,
            "line": list(range(1, num_rows + 1)),
            "prompt": [f"{name} question {row}" for row in range(num_rows)],
            "response": [f"{name} secret {row}" for row in range(num_rows)],
        }
    )
    return TextSet(name, table, vectors)


def safe_set() -> TextSet:
    return text_set("safe", 120, SAFE, seed=0)


def harmful_set() -> TextSet:
    return text_set("harmful", 120, HARMFUL, seed=1)


def custom_set() -> TextSet:
    return text_set("custom", 240, SAFE, seed=2)


def with_row(rows: TextSet, place: int, like: TextSet, row: int, *, column="response") -> TextSet:
    """A set one of whose rows has another's text (or only its prompt)."""
    table = rows.table
    for name in ("prompt", "response") if column == "response" else ("prompt",):
        values = table[name].to_list()
        values[place] = like.table[name][row].upper() + "!"
        table = table.with_columns(pl.Series(name, values))
    return rows._replace(table=table)


def with_vector(rows: TextSet, place: int, vector: np.ndarray) -> TextSet:
    vectors = rows.vectors.copy()
    vectors[place] = vector
    return rows._replace(vectors=vectors)


def named(found: Lint, name: str):
    return [each for each in found.findings if each.name == name]


def lines(found: Lint, name: str) -> list[int]:
    (only,) = named(found, name)
    return only.rows["line"].to_list()


def test_clean_references_have_no_fault():
    found = lint(safe_set(), harmful_set(), custom_set())
    assert found.is_clean, [each.name for each in found.findings]
    assert found.flips["safe"].low == found.flips["harmful"].low == 0


def test_a_row_on_both_sides_is_an_error_that_names_both_places():
    harmful = harmful_set()
    found = lint(with_row(safe_set(), 7, harmful, 3), harmful)
    (both,) = named(found, "same_row_on_both_sides")
    assert both.severity == "error"
    assert (both.num_rows, both.share) == (1, 1 / 120)
    row = both.rows.row(0, named=True)
    assert (row["file"], row["line"]) == ("safe.jsonl", 8)
    assert (row["like_file"], row["like_line"]) == ("harmful.jsonl", 4)
    assert not found.is_clean


def test_one_prompt_with_two_answers_is_only_a_note():
    harmful = harmful_set()
    found = lint(with_row(safe_set(), 7, harmful, 3, column="prompt"), harmful)
    assert lines(found, "same_prompt_on_both_sides") == [8]
    assert found.is_clean


def test_a_near_row_on_both_sides_is_an_error():
    harmful = harmful_set()
    found = lint(with_vector(safe_set(), 5, harmful.vectors[9] * 3), harmful)
    assert lines(found, "near_row_on_both_sides") == [6]


def test_safe_rows_that_sit_inside_the_harmful_reference_are_found():
    harmful, safe = harmful_set(), safe_set()
    for row in (10, 20, 30):
        safe = with_vector(safe, row, np.eye(DIMENSIONS)[HARMFUL + row // 10])
    found = lint(safe, harmful)
    assert lines(found, "safe_rows_inside_harmful") == [11, 21, 31]
    assert named(found, "safe_rows_inside_harmful")[0].severity == "warning"


@pytest.mark.parametrize("rows_at_once", [1, 7, 200])
def test_rows_inside_are_the_same_however_many_are_looked_at_at_once(monkeypatch, rows_at_once):
    rng = np.random.default_rng(4)
    safe, harmful = rng.normal(size=(20, 3)), rng.normal(size=(400, 3))
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (safe, harmful))
    own = x @ x.T - 9 * np.eye(20)
    expected = np.flatnonzero(own.max(axis=1) < np.sort(x @ y.T, axis=1)[:, -module.NUM_NEIGHBOURS])
    assert 0 < len(expected) < 20
    monkeypatch.setattr(module, "_CHUNK", rows_at_once)
    np.testing.assert_array_equal(module._inside(safe, harmful), expected)


def test_the_matrix_of_all_safe_rows_is_never_held():
    rng = np.random.default_rng(4)
    safe, harmful = rng.normal(size=(8_000, 4)), rng.normal(size=(20, 4))
    tracemalloc.start()
    module._inside(safe, harmful)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 8_000 * 8_000 / 2, "bytes of half the matrix"


def test_known_flips_are_listed_the_surest_first_with_a_rate():
    safe, harmful = safe_set(), harmful_set()
    strangers = text_set("harmful", 60, HARMFUL, seed=5).vectors
    for row in range(24):
        safe = with_vector(safe, row, strangers[row])
    found = lint(safe, harmful)
    (flipped,) = named(found, "flipped_labels")
    assert set(flipped.rows["line"]) <= set(range(1, 25))
    assert flipped.num_rows >= 12
    assert flipped.rows["score"].is_sorted()
    assert found.flips["safe"].low <= 0.2 <= found.flips["safe"].high
    assert flipped.severity in ("warning", "error")


def test_repeated_texts_and_repeated_vectors_are_counted_apart():
    safe = safe_set()
    safe = with_row(safe, 50, safe, 2)
    safe = with_vector(safe, 60, safe.vectors[4])
    found = lint(safe, harmful_set())
    assert lines(found, "equal_rows") == [51]
    assert lines(found, "near_copies") == [61]


@pytest.mark.parametrize(("reference", "severity"), [("safe", "warning"), ("harmful", "error")])
def test_custom_rows_that_a_reference_holds_are_leaks(reference, severity):
    sets = {"safe": safe_set(), "harmful": harmful_set()}
    custom = with_row(custom_set(), 11, sets[reference], 0)
    found = lint(sets["safe"], sets["harmful"], custom)
    (leak,) = named(found, f"custom_row_in_{reference}")
    assert (leak.text_set, leak.severity, leak.rows["line"].to_list()) == ("custom", severity, [12])


def test_prompts_of_the_evaluation_are_found_without_their_vectors():
    harmful = harmful_set()
    asked = text_set("evaluation.harmful", 5, HARMFUL, seed=9)
    asked = with_row(asked, 2, harmful, 8, column="prompt")._replace(vectors=np.zeros((5, 0)))
    found = lint(safe_set(), harmful, evaluation=[asked])
    (hit,) = named(found, "evaluation_prompt")
    assert (hit.rows["line"][0], hit.rows["like_line"][0]) == (9, 3)


def test_a_topic_that_only_the_custom_set_has_is_missing_in_the_safe_reference():
    narrow = text_set("safe", 120, SAFE, seed=0, topics=TOPICS - 1)
    found = lint(narrow, harmful_set(), custom_set())
    of_topic = [line for line in range(1, 241) if (line - 1) % TOPICS == TOPICS - 1]
    assert lines(found, "missing_in_safe") == of_topic
    assert named(found, "missing_in_safe")[0].share == pytest.approx(1 / TOPICS)


def test_a_topic_that_only_the_safe_reference_has_is_a_note():
    found = lint(safe_set(), harmful_set(), text_set("custom", 200, SAFE, seed=2, topics=5))
    assert named(found, "missing_in_custom")[0].severity == "note"


def test_harmful_contamination_is_not_missing_in_the_safe_reference():
    clean_rows, bad = custom_set(), text_set("custom", 60, HARMFUL, seed=3)
    custom = TextSet(
        "custom",
        pl.concat([clean_rows.table, bad.table]),
        np.concatenate([clean_rows.vectors, bad.vectors]),
    )
    assert not named(lint(safe_set(), harmful_set(), custom), "missing_in_safe")


def test_a_harmful_reference_about_one_thing_is_narrow():
    found = lint(safe_set(), text_set("harmful", 120, HARMFUL, seed=1, topics=2))
    assert named(found, "one_topic_dominates")[0].share == pytest.approx(0.5, abs=0.05)


def test_few_rows_are_not_said_to_be_about_one_thing():
    few, enough = (text_set("harmful", n, HARMFUL, seed=1, topics=2) for n in (119, 120))
    assert not named(lint(safe_set(), few), "one_topic_dominates")
    assert named(lint(safe_set(), enough), "one_topic_dominates")


def test_longer_texts_and_another_script_are_shifts_of_form():
    safe = safe_set()
    long = safe._replace(table=safe.table.with_columns(pl.col("response") + "a" * 500))
    assert named(lint(long, harmful_set(), custom_set()), "length_differs")
    russian = safe._replace(table=safe.table.with_columns(pl.lit("привет мир").alias("prompt")))
    assert named(lint(russian, harmful_set(), custom_set()), "script_differs")


def test_findings_never_hold_a_text_and_have_one_schema():
    harmful = harmful_set()
    custom = with_row(custom_set(), 11, harmful, 0)
    found = lint(with_row(safe_set(), 7, harmful, 3), harmful, custom)
    for each in found.findings:
        assert dict(each.rows.schema) == ROW_SCHEMA
        assert "secret" not in str(each)
        assert each.num_rows == each.rows.height


def test_the_gravest_finding_comes_first():
    harmful = harmful_set()
    found = lint(
        with_row(safe_set(), 7, harmful, 3), harmful, with_row(custom_set(), 1, harmful, 2)
    )
    order = [("error", "warning", "note").index(each.severity) for each in found.findings]
    assert order == sorted(order)


@pytest.mark.parametrize("num_rows", [1, 2, 9, 49])
def test_a_small_reference_is_said_to_be_small(num_rows):
    small = text_set("safe", num_rows, SAFE, seed=0)
    (few,) = named(lint(small, harmful_set(), custom_set()), "too_few_rows")
    assert (few.text_set, few.num_rows) == ("safe", num_rows)
    assert few.severity == ("error" if num_rows < 10 else "warning")


def test_one_row_of_everything_is_linted_too():
    one = [text_set(name, 1, 0, seed=0) for name in ("safe", "harmful", "custom")]
    assert len(named(lint(*one), "near_row_on_both_sides")) == 1


def test_identical_vectors_everywhere_are_copies_and_nothing_breaks():
    sets = [each._replace(vectors=np.ones((each.num_rows, 4))) for each in
            (safe_set(), harmful_set(), custom_set())]  # fmt: skip
    found = lint(*sets)
    assert named(found, "near_copies")[0].num_rows == 119
    assert named(found, "one_topic_dominates")[0].share == 1


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda s: s._replace(table=s.table[:0], vectors=s.vectors[:0]), "has no rows"),
        (lambda s: s._replace(vectors=s.vectors[:5]), "one vector of finite numbers a row"),
        (lambda s: s._replace(vectors=s.vectors[:, :3]), "different dimensions"),
        (lambda s: with_vector(s, 0, np.full(DIMENSIONS, np.inf)), "not finite"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_sets_that_do_not_fit_are_refused(broken, message, place):
    sets = [safe_set(), harmful_set(), custom_set()]
    sets[place] = broken(sets[place])
    with pytest.raises(InputError, match=message):
        lint(*sets)
