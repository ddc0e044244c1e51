"""What people decide about single rows, and how it meets the cut.

decisions.py   the log of a task's decisions, and which of them are in force
sheet.py       a spreadsheet of rows to decide on, written and read
cells.py       cells that no spreadsheet takes for a formula
near_cut.py    which rows are worth a look
honour.py      the cut, with the decisions in force
"""
