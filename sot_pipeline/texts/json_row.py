"""One JSON object, read strictly."""

import json
from typing import Any, NoReturn

from sot_pipeline.texts.rejection import RowRejected, column_names, kind_of


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = [name for name in row if names.count(name) > 1]
        raise RowRejected(
            "duplicate_key",
            f"an object holds a key twice ({column_names(twice)}), so its value is "
            "ambiguous; expected each key once. Remove one of them.",
        )
    return row


def _no_constants(name: str) -> NoReturn:
    raise RowRejected(
        "not_finite",
        f"found {name}, which JSON does not allow; expected a number or null.",
    )


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constants)


def parse_json(text: str) -> Any:
    """Parse one JSON value; stricter than `json.loads`: no duplicate keys, NaN or Infinity.

    Raises:
        RowRejected: "broken_json", "duplicate_key", "not_finite" or "too_deep".
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise RowRejected(
            "broken_json", f"{error.msg} (character {error.pos + 1} of the row); expected JSON."
        ) from None
    except RecursionError:
        raise RowRejected(
            "too_deep", "brackets are nested hundreds deep; expected a plain row of texts."
        ) from None
    except ValueError:  # an integer of more digits than Python agrees to read
        raise RowRejected(
            "broken_json", "a number has thousands of digits; expected a readable one."
        ) from None


def parse_json_row(raw: bytes | bytearray) -> dict[str, Any]:
    """Parse the bytes of one row.

    Raises:
        RowRejected: as `parse_json`; also "invalid_utf8" and "not_an_object".
    """
    value = parse_json(decode_utf8(raw))
    if not isinstance(value, dict):
        raise RowRejected("not_an_object", f"found {kind_of(value)}; expected a JSON object.")
    return value


def decode_utf8(raw: bytes | bytearray) -> str:
    """Decode, or raise `RowRejected` "invalid_utf8"."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowRejected(
            "invalid_utf8",
            f"byte {error.start + 1} of the row is not UTF-8. Save the file again as UTF-8.",
        ) from None
