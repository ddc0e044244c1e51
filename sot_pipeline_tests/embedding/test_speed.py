"""How fast rows are embedded, measured against sentence-transformers in the same process."""

import time

import polars as pl
import pytest

from sot_pipeline.embedding.embed import embed
from sot_pipeline.embedding.load import _minilm_directory, load_encoder

NUM_ROWS, NUM_ROUNDS = 600, 3


@pytest.mark.bench
def test_minilm_is_no_slower_than_sentence_transformers(shared_data, capsys):
    st = pytest.importorskip("sentence_transformers")
    table = pl.read_parquet(shared_data / "custom_alpaca_p10.parquet").head(NUM_ROWS)
    conversations = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        for prompt, response in table.select("prompt", "response").iter_rows()
    ]
    texts = ["\n\n".join(turn["content"] for turn in turns) for turns in conversations]
    encoder = load_encoder("minilm", device="cpu")
    theirs = st.SentenceTransformer(str(_minilm_directory()), device="cpu")
    seconds = {"ours": 0.0, "theirs": 0.0}
    step = NUM_ROWS // NUM_ROUNDS
    for start in range(0, NUM_ROWS, step):  # in turns, so that both meet the same machine
        began = time.perf_counter()
        embed(conversations[start : start + step], encoder)
        middle = time.perf_counter()
        theirs.encode(texts[start : start + step], show_progress_bar=False)
        seconds["ours"] += middle - began
        seconds["theirs"] += time.perf_counter() - middle
    num_tokens = sum(map(len, encoder.tokenize(conversations).token_ids))
    with capsys.disabled():
        for name, of in seconds.items():
            print(f"\n{name}: {num_tokens / of:,.0f} tokens/s", end="")
    assert seconds["ours"] <= 1.1 * seconds["theirs"]
