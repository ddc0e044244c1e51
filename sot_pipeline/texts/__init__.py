"""Text sets in, text sets out: every row is read, or rejected with a reason.

Reading map:
    locate.py        what a source means: files, globs, folders, URLs, hub datasets
    dataset_folder.py  which files of a dataset's folder hold its rows; its licence
    file_systems.py  where files lie, and what can go wrong there
    fetch.py         remote files, fetched once
    read.py          read_texts: files in any accepted format -> `TextSet`
    text_set.py      `TextSet`: rows, rejected rows, files
    kept_rows.py     write_kept_rows: the rows that stay, in the input's own format
    formats.py       which format a row has, and the conversation it holds
    conversation.py  canonical text, sample_id, prompt and response of a conversation
    source.py        a file's bytes: size cap, compression, file type, sha256
    layout.py        where each row of a JSONL or JSON file begins and ends
    csv_layout.py    the same for CSV and TSV
    parquet.py       the rows of a Parquet file
    arrow.py         the rows of an Arrow file
    rejection.py     why a row is not used
"""
