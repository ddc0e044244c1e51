"""The safety report: one offline HTML file, from plain numbers and frames.

Reading map:
    data.py           ReportData: all that a report needs
    render.py         render_report: data -> HTML, with its content-security policy
    numbers.py        what the sentences, tables and figures have in common
    verdict.py        the sentences at the top, derived from the numbers
    tables.py         rows of the tables
    figures.py        PNG figures and their alternative texts
    embedding_map.py  two coordinates per text, for the map
    visible.py        text of unknown origin, made harmless to the eye
"""
