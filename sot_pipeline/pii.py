"""Personal data that patterns find with few false alarms.

Found: e-mail addresses; telephone numbers (international ones with `+` or `00`, US, Canadian
and British ones as they are written at home); IP addresses; payment card numbers (known
issuer, Luhn's check digit); IBANs (ISO 13616: length of the country, mod 97); US social
security numbers.

**Not found**: names, postal addresses, dates of birth, user names, national numbers of other
countries, telephone numbers in the home format of other countries, anything spelled out in
words or broken up on purpose. A count of zero therefore says that nothing of the kinds above
was seen, never that a text is anonymous.

Reserved examples (`example.com`, 192.0.2.0/24) count like any other: what a text means by
them cannot be told. Every pattern is bounded, so the time is linear in the length of the text.
"""

import functools
import ipaddress
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

PII_KINDS: tuple[str, ...] = ("email", "phone", "ip_address", "credit_card", "iban", "us_ssn")


class _Find(NamedTuple):
    start: int
    end: int
    kind: str


def count_pii(texts: Iterable[str]) -> dict[str, int]:
    """How often each kind of personal data occurs in all texts together; every kind is present."""
    counts = dict.fromkeys(PII_KINDS, 0)
    for text in texts:
        for _, finds in _rounds(text):
            for find in finds:
                counts[find.kind] += 1
    return counts


def redact(text: str) -> str:
    """The text with each find replaced by its kind, as in `[email]`; unchanged without finds.

    A second pass changes nothing, and `count_pii` of the result is zero.
    """
    for redacted, _ in _rounds(text):
        text = redacted
    return text


def redact_id(source_id: str, sample_id: str) -> str:
    """An id of the input without personal data; one that loses its identity by that gets the
    first eight digits of the sample id after it, as in `[email] 3f2a91c0`."""
    redacted = redact(source_id)
    return source_id if redacted == source_id else f"{redacted} {sample_id[:8]}"


def _rounds(text: str) -> Iterator[tuple[str, list[_Find]]]:
    """Finds until there are none: what stood beside one may be one itself without it.

    Each round leaves fewer digits and @ signs, so that there is a last one.
    """
    while finds := _finds(text):
        text = _replaced(text, finds)
        yield text, finds


def _replaced(text: str, finds: list[_Find]) -> str:
    pieces, end = [], 0
    for find in finds:
        pieces += [text[end : find.start], f"[{find.kind}]"]
        end = find.end
    return "".join([*pieces, text[end:]])


def _finds(text: str) -> list[_Find]:
    """Disjoint finds in the order of the text; of two that overlap the more specific one."""
    finds: list[_Find] = []
    if "@" in text:
        finds += _emails(text)
    for gate, finders in _NUMBERS:
        if gate.search(text):
            finds += itertools.chain.from_iterable(find(text) for find in finders)
    if len(finds) < 2:
        return finds
    return _disjoint(finds)


def _disjoint(finds: list[_Find]) -> list[_Find]:
    """Of finds that overlap the one that is given first; in the order of the text."""
    taken: list[tuple[int, _Find]] = []
    for priority, find in sorted(enumerate(finds), key=lambda item: item[1].start):
        if not taken or find.start >= taken[-1][1].end:
            taken.append((priority, find))
        elif priority < taken[-1][0]:
            taken[-1] = (priority, find)
    return [find for _, find in taken]


# ------------------------------------------------------------------------------ addresses

_EMAIL = re.compile(
    r"(?<![\w@])\w(?:[\w.%+-]{0,62}[\w+-])?@(?:\w(?:[\w-]{0,61}\w)?\.){1,8}[^\W\d_]{2,24}(?![\w@])"
)


def _emails(text: str) -> Iterator[_Find]:
    return (_Find(*match.span(), "email") for match in _EMAIL.finditer(text))


_IPV4 = re.compile(r"(?<![\w.:/-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w-]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]|\.[0-9])")
_VERSION = re.compile(r"(?:\bv|version|release|section|chapter|build)\W{0,4}$", re.I)


def _ip_addresses(text: str) -> Iterator[_Find]:
    for match in itertools.chain(_IPV4.finditer(text), _IPV6.finditer(text)):
        if _names_a_machine(match[0]) and not _VERSION.search(
            text, max(match.start() - 14, 0), match.start()
        ):
            yield _Find(*match.span(), "ip_address")


def _names_a_machine(written: str) -> bool:
    """Whether an address may lead to somebody: numbering such as 1.2.3.4, netmasks, this
    machine itself, and C++ names such as `a::b` do not."""
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or written.startswith("255."):
        return False
    if address.version == 4:
        return any(len(part) > 1 for part in written.split("."))
    groups = [group for group in written.split(":") if group]
    return len(groups) > 2 and any(char.isdigit() for char in written)


# ---------------------------------------------------------------------------- check digits

_CARD = re.compile(
    r"(?<![\w.+-])[2-6](?:[0-9]{12,18}|[0-9]{3}(?:[ -][0-9]{4}){3}|[0-9]{3}[ -][0-9]{6}[ -][0-9]{5})"
    r"(?![\w]|[.-][0-9])"
)
# Leading digits and number of digits of ISO/IEC 7812 issuers: Visa, Mastercard, American
# Express, Discover, JCB, Diners Club, UnionPay
_ISSUER = re.compile(
    r"4[0-9]{12}(?:[0-9]{3}){0,2}|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"
    r"|3[47][0-9]{13}|6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12}|35(?:2[89]|[3-8][0-9])[0-9]{12}"
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}|62[0-9]{14,17}"
)


def _credit_cards(text: str) -> Iterator[_Find]:
    for match in _CARD.finditer(text):
        digits = re.sub("[ -]", "", match[0])
        if _ISSUER.fullmatch(digits) and _luhn_holds(digits):
            yield _Find(*match.span(), "credit_card")


def _luhn_holds(digits: str) -> bool:
    """Source: ISO/IEC 7812-1, annex B."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(map(int, digits[::-2]))) % 10 == 0


_IBAN = re.compile(
    r"(?<![\w-])[A-Z]{2}[0-9]{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)(?![\w-])"
)
# Source: SWIFT's registry of IBAN formats (ISO 13616), number of characters by country
_IBAN_LENGTHS = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST",
    26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_IBAN_LENGTH_OF = {
    country: length for length, countries in _IBAN_LENGTHS.items() for country in countries.split()
}


def _ibans(text: str) -> Iterator[_Find]:
    for match in _IBAN.finditer(text):
        end = _end_of_iban(match[0])
        if end and _mod_97_holds(match[0][:end].replace(" ", "")):
            yield _Find(match.start(), match.start() + end, "iban")


def _end_of_iban(written: str) -> int:
    """Where the country's number of characters ends (a word in capitals may follow); 0: inside a word."""
    length = _IBAN_LENGTH_OF.get(written[:2], 0)
    ends = [match.end() for match in re.finditer("[A-Z0-9]", written)]
    if not 0 < length <= len(ends):
        return 0
    end = ends[length - 1]
    return end if written[end : end + 1] in ("", " ") else 0


def _mod_97_holds(compact: str) -> bool:
    """Source: ISO 13616-1, clause 6: letters as numbers from A = 10, remainder 1."""
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


_US_SSN = re.compile(  # never issued: area 000, 666 and 9xx, group 00, serial 0000
    r"(?<![\w.+-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![\w]|[.-][0-9])"
)


def _us_ssns(text: str) -> Iterator[_Find]:
    return (_Find(*match.span(), "us_ssn") for match in _US_SSN.finditer(text))


# ------------------------------------------------------------------------------ telephones

_AFTER_PHONE = r"(?![\w%]|[.-][0-9])"
# How a number is written, and the region whose rules read it (None: its own country code)
_PHONES = (
    (re.compile(r"(?<![\w.+)])\+[0-9](?:[ .()/-]{0,2}[0-9]){7,14}" + _AFTER_PHONE), None),
    (re.compile(r"(?<![\w.+$€£-])00[1-9][0-9]{0,2}(?:[ -][0-9]{2,10}){2,5}" + _AFTER_PHONE), "GB"),
    (
        re.compile(
            r"(?<![\w.+$€£#)-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}([ .-]))"
            r"[2-9][0-9]{2}(?(1)\1|[ .-])[0-9]{4}" + _AFTER_PHONE
        ),
        "US",
    ),
    (
        re.compile(
            r"(?<![\w.+$€£#)-])(?:\(0[0-9]{2,4}\) ?|0[0-9]{2,4}[ -])[0-9]{3,4}(?:[ -]?[0-9]{3,4}){1,2}"
            + _AFTER_PHONE
        ),
        "GB",
    ),
)
_MAX_GROUPS_AFTER = 3
_SAID_TO_BE_PHONE = re.compile(
    r"(?<![\w\[])(?:tele)?(?:phone|tel|mobile|cell|fax|call|whatsapp)\b[^0-9\n]{0,20}"
    r"(?<![\w.+$€£-])([2-9][0-9]{9})" + _AFTER_PHONE,
    re.I,
)


def _phones(text: str) -> Iterator[_Find]:
    for pattern, region in _PHONES:
        position = 0
        while match := pattern.search(text, position):
            length = _phone_length(match[0], region)
            position = match.start() + (length or _first_group(match[0]))
            if length:
                yield _Find(match.start(), position, "phone")
    for match in _SAID_TO_BE_PHONE.finditer(text):
        if _phone_length(match[1], "US"):
            yield _Find(*match.span(1), "phone")


def _first_group(written: str) -> int:
    """Characters before the first separator: a number may start behind it."""
    separator = re.search(r"\D", written[1:])
    return 1 + separator.start() if separator else len(written)


@functools.lru_cache(maxsize=4096)
def _phone_length(written: str, region: str | None) -> int:
    """Characters of the longest valid number that starts a run of digits and separators; 0: none.

    Another number may follow after a blank, so that the last groups are tried without.
    """
    from phonenumbers import Leniency, PhoneNumberMatcher  # 0.1 s to import

    separators = [match.start() for match in re.finditer(r"[ ./-]", written)]
    for end in [len(written), *separators[: -_MAX_GROUPS_AFTER - 1 : -1]]:
        for match in PhoneNumberMatcher(written[:end], region, leniency=Leniency.VALID):
            if match.start == 0:
                return match.end
    return 0


# What every find of a kind holds, searched for first: five of six texts, and of sums and
# prices nearly all, are done with these
_NUMBERS: tuple[tuple[re.Pattern[str], tuple[Callable[[str], Iterator[_Find]], ...]], ...] = (
    (re.compile("[A-Z]{2}[0-9]{2}(?:[A-Z0-9]{5}| [A-Z0-9]{4} )"), (_ibans,)),
    (re.compile("[0-9](?:[ .()/-]{0,3}[0-9]){7}"), (_credit_cards, _us_ssns, _phones)),
    (
        re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]"),
        (_ip_addresses,),
    ),
)
