"""Other ways to choose rows, to compare push-pull weights with.

A selector is a pure function from a custom set, and what it compares the set with, to one
float64 log-weight per custom row, in their order: larger means keep, only the order counts, every
value is finite. All rows take part whatever their length; a row that a selector cannot read
ranks last and is counted.

| module | what it looks at | references | source |
|---|---|---|---|
| `on_references` | vectors: logistic regression, nearest neighbours, centroids | safe, harmful | baselines |
| `dsir` | counts of hashed words and word pairs | safe | DSIR, Xie et al., 2023 (arXiv 2302.03169) |
| `saft` | main directions of hidden states | labelled rows to choose with | SAFT, Choi et al., 2024 (arXiv 2410.10014) |
| `larf` | hidden states of the layer that refusals hang on | safe, harmful | LARF, Li et al., 2025 (arXiv 2507.18631) |
| `seal` | row weights learnt in a bilevel fine-tuning | safe | SEAL, Shen et al., 2025 (arXiv 2410.07471) |
| `toss` | each answer token under a safe and a harmful model | safe, harmful | TOSS, 2026 (arXiv 2603.01185) |
| `judged` | a judge's verdict on each row alone | none | AlpaGasus, Chen et al., 2024 (arXiv 2307.08701); guard models |

`hidden_states` reads what `saft` and `larf` need.
"""
