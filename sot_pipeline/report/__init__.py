"""The safety report: one offline HTML file, from plain numbers and frames.

Reading map:
    data.py            ReportData: all that a report needs
    render.py          render_report: data -> HTML, with its content-security policy
    page/              the template, the styles and the scripts of the page
    numbers.py         what the sentences, tables and figures have in common
    summary.py         the verdict in one paragraph
    verdict.py         the sentences under it, derived from the numbers
    overview.py        key figures, and how the weights and the cut were found
    changed.py         what differs from the purification before
    tables.py          scores, costs, rejected rows
    comparison.py      one line per compared method; quality.py: as tables of the page
    categories.py      what the cut took of each category
    coverage.py        rows that no reference reaches
    row_order.py       which rows a reader wants to see first; row_tables.py: as tables
    row_data.py        every row, for the page's script; packing.py: compressed, never markup
    embedding_map.py   two coordinates per text, with an axis from safe to harmful
    neighbourhoods.py  two others, by t-SNE, that keep neighbours together
    figures/           PNG figures and their alternative texts; pictures.py: on the page
    visible.py         text of unknown origin, made harmless to the eye
"""
