"""Names of methods: SELECTION, or SELECTION+DEFENCE."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.definitions import ASSETS
from sot_pipeline.defs.methods import READS, SELECTIONS, DefenceName, Method, read_by
from sot_pipeline.errors import InputError
from sot_pipeline.report import methods as explained


@given(st.sampled_from(SELECTIONS), st.sampled_from(sorted(READS)))
def test_a_name_says_the_method_and_the_method_its_name(selection, defence):
    method = Method(selection, defence)
    assert Method.parse(str(method)) == method


def test_no_defence_is_the_same_as_none():
    assert Method.parse("sft+none") == Method.parse("sft") == Method("sft")
    assert str(Method("sft", "none")) == "sft"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sft+spff", "no defence is called 'spff'; did you mean 'spf'"),
        ("sft_claen", "did you mean 'sft_clean'"),
        ("spf", "no selection is called 'spf'"),
        ("sft+spf+sbr", "several defences"),
        ("sft+", "no defence is called ''"),
        ("", "no selection is called ''"),
        ("base", "no selection"),
    ],
)
def test_a_wrong_name_is_refused_with_a_hint(text, message):
    with pytest.raises(InputError, match=message.replace("+", r"\+")):
        Method.parse(text)


def test_every_defence_reads_assets_that_exist():
    assert set(READS) == set(get_args(DefenceName))
    assert read_by(READS) <= {asset.name for asset in ASSETS}


def test_every_name_is_explained_in_reports():
    assert set(explained.SELECTIONS) == {"base", *SELECTIONS}
    assert set(explained.DEFENCES) == set(READS) - {"none"}


def test_every_defence_of_the_training_loop_has_a_name_here():
    from sot_pipeline.finetuning.defences.registry import DEFENCES

    assert set(DEFENCES) <= set(READS)
