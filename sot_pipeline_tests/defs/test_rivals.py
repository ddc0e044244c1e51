"""Options of rivals: names, types and values are checked where they are read."""

import pytest

from sot_pipeline.defs.rivals import check_options, known_options
from sot_pipeline.defs.settings import RivalSettings, resolve_settings
from sot_pipeline.errors import InputError


def options(rival: str, **chosen) -> RivalSettings:
    settings, _ = resolve_settings([("task.yaml", {"rivals": {"options": {rival: chosen}}})])
    return settings.rivals


@pytest.mark.parametrize(
    ("rival", "chosen", "message"),
    [
        ("knn", {"num_neighbours": "20"}, "knn: num_neighbours is '20'; expected a whole number"),
        ("knn", {"num_neighbours": 2.5}, r"num_neighbours is 2\.5; expected a whole number"),
        ("knn", {"num_neighbours": True}, "num_neighbours is True; expected a whole number"),
        ("dsir", {"smoothing": None}, "dsir: smoothing is None; expected a number"),
        ("dsir", {"smoothing": float("nan")}, "smoothing is nan; expected a number"),
        ("dsir", {"per_token": 1}, "per_token is 1; expected true or false"),
        ("seal", {"optimizer": "adamw"}, "optimizer is 'adamw'; expected 'mirror' or 'adam'"),
        ("seal", {"weight_learning_rate": "x"}, "is 'x'; expected a number or null"),
        ("seal", {"target_modules": "q_proj"}, "is 'q_proj'; expected a list of texts"),
        ("seal", {"num_epochs": 0}, "seal: batch_size=64, num_epochs=0; expected at least 2"),
        ("toss", {"num_epochs": 0}, r"toss: num_epochs=0, learning_rate=0\.0001; expected numbers"),
        ("toss", {"batch_size": 0}, "toss: batch_size is 0; expected at least 1"),
        ("knn", {"neighbours": 3}, "knn has no option 'neighbours'; did you mean 'num_neighbours'"),
        ("centroid", {"seed": 3}, "centroid has no option 'seed'; it has none"),
    ],
)
def test_a_value_that_a_rival_does_not_take_is_refused(rival, chosen, message):
    with pytest.raises(InputError, match=message):
        options(rival, **chosen)


@pytest.mark.parametrize(
    ("rival", "chosen"),
    [
        ("dsir", {"smoothing": 1, "per_token": False}),
        ("seal", {"weight_learning_rate": None, "optimizer": "adam"}),
        ("toss", {"target_modules": ("q_proj", "k_proj"), "num_epochs": 0.5}),
    ],
)
def test_values_of_the_right_type_are_kept(rival, chosen):
    assert options(rival, **chosen).options[rival] == chosen


@pytest.mark.parametrize("rival", ["logistic_regression", "knn", "dsir", "saft", "seal", "toss"])
def test_every_default_is_a_value_that_the_rival_takes(rival):
    known = known_options(rival)
    assert known
    check_options(rival, {name: option.default for name, option in known.items()})
