"""Text sets in, text sets out: every row is read, or rejected with a reason.

Reading map:
    read.py          read_texts: a file in any accepted format -> `TextSet`
    kept_rows.py     write_kept_rows: the rows that stay, in the input's own format
    formats.py       which format a row has, and the conversation it holds
    conversation.py  canonical text, sample_id, prompt and response of a conversation
    source.py        a file's bytes: size cap, compression, file type, sha256
    layout.py        where each row of a JSONL or JSON file begins and ends
    csv_layout.py    the same for CSV and TSV
    parquet.py       the rows of a Parquet file
    rejection.py     why a row is not used
"""
