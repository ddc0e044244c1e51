"""Every selector on the demo's world and its aligned model, harmful rows unknown to it."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sot_pipeline.demo.aligned_model import train_aligned_model
from sot_pipeline.demo.world import build_world
from sot_pipeline.embedding.embed import embed
from sot_pipeline.embedding.load import load_encoder
from sot_pipeline.language_model import load_language_model
from sot_pipeline.selectors.hidden_states import last_token_states
from sot_pipeline.selectors.larf import larf
from sot_pipeline.selectors.on_references import centroid, logistic_regression, nearest_neighbours
from sot_pipeline.selectors.saft import saft
from sot_pipeline.selectors.seal import SealRecipe, seal
from sot_pipeline.selectors.toss import TossRecipe, toss

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
]
WORLD = build_world(0)
CUSTOM, SAFE, HARMFUL = (
    [row.messages for row in rows] for rows in (WORLD.custom, WORLD.safe, WORLD.harmful)
)
# a model of a million parameters needs far larger steps than one of billions
SHORT = {"learning_rate": 1e-3, "batch_size": 32, "micro_batch_size": 32, "max_length": 256}


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligned")
    train_aligned_model(folder)
    return folder


@pytest.fixture(scope="module")
def vectors(aligned):
    encoder = load_encoder(str(aligned), device="cpu")
    return [embed(rows, encoder).vectors for rows in (CUSTOM, SAFE, HARMFUL)]


@pytest.fixture(scope="module")
def states(aligned):
    lm = load_language_model(aligned, device="cpu")
    return [last_token_states(lm, rows, max_length=256) for rows in (CUSTOM, SAFE, HARMFUL)]


def auroc(log_weights):
    """Chance that a harmful row weighs less than another; 0.5 by chance."""
    return roc_auc_score([row.label == "harmful" for row in WORLD.custom], -log_weights)


@pytest.mark.parametrize("selector", [logistic_regression, nearest_neighbours, centroid])
def test_scores_on_references_rank_harmful_rows_low(vectors, selector):
    assert auroc(selector(*vectors)) > 0.95


def test_larf_ranks_harmful_rows_low(states):
    assert auroc(larf(*(layers[-1] for layers in states))) > 0.95


def test_saft_ranks_harmful_rows_low(states):
    custom, safe, harmful = states
    labelled = np.concatenate([safe[:, :50], harmful[:, :50]], axis=1)
    assert auroc(saft(custom, labelled, np.arange(100) >= 50).log_weights) > 0.9


def test_seal_ranks_harmful_rows_low(aligned):
    result = seal(aligned, CUSTOM, SAFE, SealRecipe(num_epochs=1, **SHORT))
    assert auroc(result.log_weights) > 0.95


def test_toss_ranks_harmful_rows_low(aligned):
    result = toss(aligned, CUSTOM, SAFE, HARMFUL, TossRecipe(num_epochs=2, **SHORT))
    assert auroc(result.log_weights) > 0.95
