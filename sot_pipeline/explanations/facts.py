"""Does a text say more than the evidence holds?

A checker for wordings that a language model proposes. It is strict where it cannot know: a number,
an id or a name that the evidence does not hold counts as added, and so does a verdict turned
round. A wording that is refused costs nothing, since the template's own stands in for it. What it
cannot see are claims without a number, a name or a verdict ("the row is badly written").
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

MAX_CHARACTERS = 1_500
_TEXTS = ("reason", "explanation")  # evidence that is prose: its numbers count, it is no name

_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)%])-)?"
    r"(?P<number>\d{1,3}(?:[,'’_ ]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?P<exponent>[eE][+-]?\d+)?(?:(?P<ordinal>st|nd|rd|th)\b)?"
    r"(?P<percent>\s?(?:%|‰|per\s?cent\b|percentage points?\b))?"
)
_WORDS = {
    name: float(value)
    for value, names in {
        0: "zero none", 0.1: "tenths", 0.2: "fifths", 0.25: "quarter quarters",
        0.5: "half halves halved", 1 / 3: "thirds", 1: "one once single first", 3: "three third thrice triple tripled threefold",
        2: "two twice double doubled twofold second pair", 4: "four fourth fourfold quadruple",
        5: "five fivefold", 6: "six sixth sixfold", 7: "seven seventh", 8: "eight eighth",
        9: "nine ninth", 10: "ten tenth tenfold", 11: "eleven", 12: "twelve dozen dozens", 13: "thirteen",
        14: "fourteen", 15: "fifteen", 16: "sixteen", 17: "seventeen", 18: "eighteen",
        19: "nineteen", 20: "twenty", 30: "thirty", 40: "forty", 50: "fifty", 60: "sixty",
        70: "seventy", 80: "eighty", 90: "ninety", 100: "hundred hundreds hundredfold",
        1_000: "thousand thousands", 1_000_000: "million millions", 1e9: "billion billions",
    }.items()
    for name in names.split()
}  # fmt: skip
_PARTS = [
    "half",
    "third",
    "quarter",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
]
_FRACTION = re.compile(
    rf"\b(?P<count>a|an|one|two|three|four|five|six|seven|eight|nine)[\s-]"
    rf"(?P<part>{'|'.join(_PARTS)})s?\b",
    re.I,
)
_ROMAN = re.compile(r"\b[IVXLCDM]{2,}\b")
# words that the templates use without counting: "no single example stands out"
_NOT_COUNTING = re.compile(
    r"\bno single\b|\bno one\b|\bone another\b|\bbest first\b|\bone side\b",
    re.I,
)
_LIKE_A_NAME = re.compile(r"\w*[a-z0-9]_[a-z0-9]\w*", re.I)  # snake_case: a method or a category
_QUOTED = re.compile(r"“([^”]*)”|\"([^\"]*)\"|«([^»]*)»|`([^`]*)`")
_KEEPS = r"kept|keeps|retained|stays|stayed|remains|remained|survives|survived|included|accepted|preserved"
_DROPS = (
    r"removed|removes|dropped|drops|discarded|excluded|rejected|deleted|eliminated|thrown out|"
    r"filtered out|taken out|left out"
)
_VERDICT = re.compile(rf"\b(?:(?P<keeps>{_KEEPS})|(?P<drops>{_DROPS}))\b", re.I)
_MODAL = re.compile(r"\b(?:would|could|might)\b(?:\W+\w+){0,3}\W*$", re.I)
_OF_MANY = re.compile(r"\b(?:rows|examples|share|number)(?:\W+(?:are|were|is|that))*\W*$", re.I)
_NEGATED = re.compile(
    r"(?:\b(?:not|never|no longer|nor|hardly|without being)\b|n['’]t\b)(?:\W+\w+){0,2}\W*$", re.I
)
_NEARER = re.compile(
    r"\b(?:closer|nearer|more (?:similar|alike))\s+to\s+(?:\w+\s+){0,3}?(?P<side>safe|harmful)\b",
    re.I,
)
_REVIEWED = re.compile(r"\b(?:review(?:er|ed)|human|person|people|annotator|moderator)s?\b", re.I)
# a row's topic is no evidence: only its category, where the reference has one, may be named
_TOPICS = re.compile(
    r"\b(?:violen|weapon|drug|fraud|scam|hate|hateful|self-harm|suicid|sexual|porn|privacy|malware|"
    r"hack|terror|illegal|crim|harass|abus|bomb|explosiv|theft|steal|murder|kill|racis|"
    r"discriminat|poison|extremis|misinformation|toxic|insult)\w*",
    re.I,
)


def unsupported_facts(text: str, evidence: Mapping[str, Any]) -> list[str]:
    """What the text states and the evidence does not, one short phrase each; empty: nothing found.

    Args:
        text: A wording of the evidence.
        evidence: Numbers, ids and names, in lists or alone, by name; a line of `explain_rows` and
            whatever else the text may speak of. `kept` is the verdict; `reason` and `explanation`
            are prose whose numbers count as evidence. A number may be rounded to what is left of
            it if that is two digits or so; a whole number must be the same.
    """
    plain = unicodedata.normalize("NFKC", text).replace("−", "-")
    names = _names(evidence)
    without_quotes, problems = _quotes(plain, names)
    rest = _masked(without_quotes, names)
    problems += _form(text)
    problems += [f"number {c!r}" for c in text if unicodedata.category(c) in ("Nl", "No")]
    problems += _verdicts(without_quotes, evidence)
    problems += [
        f"name {m[0]!r}" for m in _LIKE_A_NAME.finditer(rest) if not any(c.isdigit() for c in m[0])
    ]
    problems += _numbers(rest, _values(evidence))
    problems += _claims(rest, evidence)
    return list(dict.fromkeys(problems))


def _form(text: str) -> list[str]:
    found = []
    if not text.strip():
        found.append("no text")
    if len(text) > MAX_CHARACTERS:
        found.append(f"more than {MAX_CHARACTERS:,} characters")
    hidden = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs") and c != "\n"}
    found += [f"hidden character U+{ord(c):04X}" for c in sorted(hidden)]
    if re.search(r"https?:|www\.", text, re.I):
        found.append("a link")
    return found


def _names(evidence: Mapping[str, Any]) -> list[str]:
    """Ids, categories and methods, the longest first."""
    given = (
        value
        for key, values in evidence.items()
        if key not in _TEXTS
        for value in _leaves(values)
        if isinstance(value, str) and value.strip()
    )
    normal = {unicodedata.normalize("NFKC", value) for value in given}
    return sorted(normal, key=lambda name: (-len(name), name))


def _values(evidence: Mapping[str, Any]) -> list[float]:
    """All numbers of the evidence, as they are and as its prose writes them."""
    names = _names(evidence)
    found: list[float] = []
    for key, values in evidence.items():
        if isinstance(values, list | tuple):
            found.append(float(len(values)))
        for value in _leaves(values):
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.append(float(value))
            elif isinstance(value, str) and key in _TEXTS:
                prose = _masked(_quotes(value, names)[0], names)
                found += [number for number, _ in map(_read, _NUMBER.finditer(prose))]
    return found


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    elif value is not None:
        yield value


def _quotes(text: str, names: list[str]) -> tuple[str, list[str]]:
    """The text without what it quotes, and quotations that are no name of the evidence."""
    problems = []
    for match in _QUOTED.finditer(text):
        quoted = next(part for part in match.groups() if part is not None)
        if quoted.strip() not in names:
            problems.append(f"quotation {quoted[:60]!r}")
    return _QUOTED.sub(" … ", text), problems


def _masked(text: str, names: list[str]) -> str:
    for name in names:
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w])", "…", text)
    return text


def _read(match: re.Match[str]) -> tuple[float, float]:
    """A written number, and the unit of its last digit."""
    digits = re.sub(r"[,'’_ ]", "", match["number"])
    unit = 10.0 ** -len(digits.partition(".")[2])
    scale = 10.0 ** int(match["exponent"][1:]) if match["exponent"] else 1.0
    if match["percent"]:
        scale /= 1_000 if "‰" in match["percent"] else 100
    return (-1 if match["sign"] else 1) * float(digits) * scale, unit * scale


def _numbers(text: str, values: list[float]) -> list[str]:
    problems = []
    for match in _NUMBER.finditer(text):
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        tail = text[match.end() :][1:2]
        if _joins(before) or _joins(after) or (after in "-/:." and tail.isalnum()):
            start = max(text.rfind(" ", 0, match.start()), text.rfind("\n", 0, match.start())) + 1
            problems.append(f"id or number {text[start:].split()[0][:60]!r}")
        elif not _supported(*_read(match), values):
            problems.append(f"number {match[0].strip()!r}")
    left = _NUMBER.sub(" ", text)
    problems += [f"number {c!r}" for c in left if c.isnumeric()]
    problems += [f"number {match[0]!r}" for match in _ROMAN.finditer(left)]
    for match in _FRACTION.finditer(left):
        part = {"half": 2, "quarter": 4, "fourth": 4}.get(match["part"].lower())
        count = 1 if match["count"].lower() in ("a", "an") else _WORDS[match["count"].lower()]
        if not _supported(count / (part or _WORDS[match["part"].lower()]), 0.0, values):
            problems.append(f"number {match[0]!r}")
    left = _FRACTION.sub(" ", left)
    counting = re.findall(r"[a-z]+", _NOT_COUNTING.sub(" ", left).lower())
    problems += [
        f"number {word!r}"
        for word in counting
        if word in _WORDS and not _supported(_WORDS[word], 0.0, values)
    ]
    return problems


def _joins(neighbour: str) -> bool:
    return bool(neighbour) and (neighbour.isalnum() or neighbour in "_#@^/×*$€£")


def _supported(number: float, unit: float, values: list[float]) -> bool:
    for value in values:
        if abs(number - value) <= 1e-9 * max(1.0, abs(value)):
            return True
        rounds = unit / 2 <= 0.06 * abs(value) and not value.is_integer()
        if rounds and abs(number - value) <= unit / 2 * (1 + 1e-9):
            return True
    return False


def _verdicts(text: str, evidence: Mapping[str, Any]) -> list[str]:
    kept, problems, stated = bool(evidence["kept"]), [], False
    for sentence in re.split(r"(?<=[.;:!?])\s+", text):
        for match in _VERDICT.finditer(sentence):
            before = sentence[: match.start()]
            if _MODAL.search(before) or _OF_MANY.search(before):
                continue  # what would be, or about other rows
            keeps = (match["keeps"] is not None) != bool(_NEGATED.search(before))
            if keeps == kept:
                stated = True
            else:
                problems.append(f"verdict {sentence[max(0, match.start() - 20) : match.end()]!r}")
    if not stated:
        problems.append(f"the verdict ({'kept' if kept else 'removed'}) is not stated")
    return problems


def _claims(text: str, evidence: Mapping[str, Any]) -> list[str]:
    problems = [f"topic {match[0]!r}" for match in _TOPICS.finditer(text)]
    if evidence.get("decision") is None:
        problems += [f"a reviewer ({match[0]!r})" for match in _REVIEWED.finditer(text)]
    safe, harmful = evidence.get("safe_similarity"), evidence.get("harmful_similarity")
    if safe is not None and harmful is not None:
        nearer = "harmful" if harmful > safe else "safe"
        problems += [
            f"direction {match[0]!r}"
            for match in _NEARER.finditer(text)
            if match["side"].lower() != nearer
        ]
    return problems
