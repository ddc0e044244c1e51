"""Push-pull optimal transport: embeddings to costs, costs to one weight per custom sample.

Read in this order: `cost.py` (cosine cost), `sinkhorn.py` (entropic OT through ott-jax),
`push_pull.py` (Eq. 5 and its minimiser), `diagnostics.py` (do the references fit the set?).
"""
