"""Push-pull optimal transport: embeddings to costs, costs to one weight per custom sample.

Read in this order: `cost.py` (cosine cost), `push_pull.py` (Eq. 5 and the public functions),
`oracle.py` (its value and gradient), `descent.py` and `anderson.py` (how its minimiser is found),
`reference.py` (transport to one reference), `tiles.py` and `kernel.py` (where its time goes),
`vectors.py` (solves from embeddings), `fit.py` (what a solve leaves, and scores of new rows),
`diagnostics.py` (do the references fit the set?), `calibration.py` (a cut with a stated risk).
`sinkhorn.py` is the same transport through ott-jax: differentiable, and what the tests compare with.
"""
