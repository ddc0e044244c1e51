"""Why each row stays or goes, in plain words, from evidence only.

transported.py      which reference rows take a row's transported mass
counterfactuals.py  what would have to differ for the row to change sides
second_opinions.py  cheap scores that disagree
rows.py             the table of all this, a line per custom row
sentences.py        its words
facts.py            what a rewritten text says that the evidence does not hold
rewriting.py        a language model's wording, used only if it adds no fact
"""

from sot_pipeline.explanations.rows import HeldOut, Reference, Solve, explain_rows

__all__ = ["HeldOut", "Reference", "Solve", "explain_rows"]
