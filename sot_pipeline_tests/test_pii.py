import time

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.pii import PII_KINDS, count_pii, redact, redact_id

EXAMPLES = [
    ("email", "jane.doe@example.com"),
    ("email", "o_brien+lists@mail.example.co.uk"),
    ("email", "rené@exämple.fr"),
    ("phone", "+44 20 7946 0018"),
    ("phone", "+1 (650) 253-0000"),
    ("phone", "+4930123456"),
    ("phone", "0044 20 7946 0018"),
    ("phone", "(650) 253-0000"),
    ("phone", "650-253-0000"),
    ("phone", "1-800-273-8255"),
    ("phone", "020 7946 0018"),
    ("ip_address", "192.168.1.1"),
    ("ip_address", "8.8.4.47"),
    ("ip_address", "2001:db8::8a2e:370:7334"),
    ("credit_card", "4111 1111 1111 1111"),
    ("credit_card", "5555555555554444"),
    ("credit_card", "3782 822463 10005"),
    ("iban", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB29NWBK60161331926819"),
    ("iban", "NO93 8601 1117 947"),
    ("us_ssn", "078-05-1120"),
]

HARMLESS = [
    "no numbers at all",
    "48/2 = <<48/2=24>>24, and 24+48+1200+160000 = 161272",
    "5 + 1000 + 2500 + 300000 + 25",
    "x = 3+4412345678901",
    "$650-253-0000 is no price and 1,234,567,890 no telephone",
    "on 2020-01-02 at 08:00:15, 12/31/1999, 1914-1918",
    "version 10.0.0.1, v1.2.3.4, section 4.2.1.3, netmask 255.255.255.0, here 127.0.0.1",
    "std::vector<a::b> x = ::c::d",
    "order 4111 1111 1111 1112 and 1234567812345670",  # Luhn's digit; no issuer
    "DE89 3704 0044 0532 0130 01 and XX89370400440532013000",
    "078-00-1120, 666-05-1120, 900-05-1120, 078-05-11201",
    "3.14159265358979323846, 0.30000000000000004, 1e-10",
    "@home, a@b, mailto:@example, user at example dot com",
    "ISBN 978-3-16-148410-0",
    "phone: 1234567890",  # area codes start with 2 to 9
    "2147483647 and 6502530000",
]


@pytest.mark.parametrize(("kind", "found"), EXAMPLES)
@pytest.mark.parametrize("around", ["{}", "see {} now", "({})", "{}.", '"{}"', "Ж[]: {}\n"])
def test_personal_data_is_replaced_by_its_kind_and_what_surrounds_it_stays(kind, found, around):
    text = around.format(found)
    assert redact(text) == around.format(f"[{kind}]")
    assert count_pii([text]) == {**dict.fromkeys(PII_KINDS, 0), kind: 1}


@pytest.mark.parametrize("text", HARMLESS)
def test_numbers_that_are_no_personal_data_stay(text):
    assert redact(text) == text


def test_ten_digits_in_a_row_are_a_telephone_number_only_where_the_text_says_so():
    assert redact("call me at 6502530000") == "call me at [phone]"
    assert redact("the sum is 6502530000") == "the sum is 6502530000"


def test_a_number_or_a_word_in_capitals_may_follow():
    assert redact("+44 20 7946 0018 10 times") == "[phone] 10 times"
    assert redact("BE68 5390 0754 7034 THIS IS IT") == "[iban] THIS IS IT"


def test_every_kind_is_counted_over_all_texts():
    counts = count_pii([found for _, found in EXAMPLES] + ["nothing"])
    assert counts == {kind: sum(example[0] == kind for example in EXAMPLES) for kind in PII_KINDS}


pieces = st.lists(
    st.sampled_from([example for _, example in EXAMPLES])
    | st.sampled_from(
        [" ", "", "-", ".", "+", "(", ")", "@", ":", "[", "]", "phone ", "v", "0", "1"]
    )
    | st.text(max_size=5),
    max_size=12,
).map("".join)


@given(pieces)
def test_redacted_text_holds_nothing_more_to_redact(text):
    redacted = redact(text)
    assert redact(redacted) == redacted
    assert not any(count_pii([redacted]).values())


@given(pieces)
def test_text_without_finds_is_unchanged_and_text_with_finds_is_not(text):
    assert (redact(text) == text) == (not any(count_pii([text]).values()))


@pytest.mark.parametrize(
    "piece",
    ["a", "a.", "@", "a@", "a@b.", "a@b.co", "1", "1-", "+1 ", "(1", ":", "1:", "10.0.0.1."]
    + ["AA00 0000 ", "phone ", "+4420794600 ", "650-253-0000(", "4111 ", "0123-456-789 "]
    + [f"{found} " for _, found in EXAMPLES],
)
def test_hostile_repetition_takes_time_linear_in_the_length(piece):
    seconds = {}
    for length in (30_000, 300_000):
        text = piece * (length // len(piece))
        start = time.process_time()
        redact(text)
        seconds[length] = time.process_time() - start
    # a quadratic search takes a hundred times longer; clocks of busy machines are coarse
    assert seconds[300_000] < 40 * seconds[30_000] + 0.5


@pytest.mark.parametrize("name", ["custom_gsm8k_clean", "custom_agnews_clean"])
def test_real_sums_and_news_hold_no_false_alarm(shared_data, name):
    texts = pl.read_parquet(shared_data / f"{name}.parquet").select(
        pl.concat_str("prompt", "response", separator="\n")
    )
    assert not any(count_pii(texts.to_series().to_list()).values())


def test_an_id_that_loses_its_identity_gets_that_of_the_text():
    assert redact_id("jane@example.org", "3f2a91c0aaaa-0") == "[email] 3f2a91c0"
    assert redact_id("row-17", "3f2a91c0aaaa-0") == "row-17"
