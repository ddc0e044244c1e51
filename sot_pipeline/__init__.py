"""sot_pipeline: purify a fine-tuning set by push-pull optimal transport.

Reading map, in pipeline order (stage | assets | pure functions):

texts      | defs/assets/texts.py      | texts/read.py, texts/kept_rows.py
embedding  | defs/assets/embeddings.py | embedding/
transport  | defs/assets/transport.py  | transport/cost.py, push_pull.py
selection  | defs/assets/purified.py, reviews.py | selection.py, reviews/, explanations/
finetuning | defs/assets/adapter.py    | finetuning/
evaluation | defs/assets/evaluation.py | evaluation/
comparison | defs/assets/rivals.py, comparison.py, experiments.py | selectors/, selection_quality.py
report     | defs/assets/report.py     | report/

`definitions.py` shows the whole graph on one screen; `cli/` drives it from a terminal.
"""

__version__ = "0.1.0"
