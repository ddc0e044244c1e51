"""Push-pull optimal transport: embeddings to costs, costs to one weight per custom sample.

Read in this order: `cost.py` (cosine cost), `sinkhorn.py` (entropic OT through ott-jax),
`push_pull.py` (Eq. 5), `oracle.py` (its value and gradient), `descent.py` (how its minimiser is
found), `fit.py` (what a solve leaves, and scores of new rows), `diagnostics.py` (do the references
fit the set?).
"""
