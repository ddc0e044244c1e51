"""The data block of a page, read back as the page's script does."""

import base64
import gzip
import json
from typing import Any

import numpy as np

from sot_pipeline_tests.report.samples import Page


def data_block(html: str) -> dict[str, Any]:
    return json.loads(Page(html).text_of("script")[0])


def unpacked(column: dict[str, Any]) -> list[Any]:
    """The values of a column; texts of only some rows as (row, text)."""
    if "rows" in column:
        return list(zip(unpacked(column["rows"]), unpacked(column["texts"]), strict=True))
    if column["type"] == "names":
        names = [None, *unpacked(column["names"])]
        return [names[code] for code in unpacked(column["codes"])]
    data = gzip.decompress(base64.b64decode(column["data"], validate=True))
    if column["type"] == "text":
        return json.loads(data)
    values = np.frombuffer(data, dtype=np.dtype(column["type"]).newbyteorder("<"))
    if column["scale"] == 1:
        return values.tolist()
    return np.where(values == -32_768, np.nan, values * column["scale"]).tolist()
