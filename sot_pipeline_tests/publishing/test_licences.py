"""Licences are given in the words of the hub and of SPDX."""

import pytest

from sot_pipeline.publishing.licences import hub_licence, hub_licences, licence_address


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("apache 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("CC-BY-SA-4.0", "cc-by-sa-4.0"),
        ("GPL-3.0-only", "gpl-3.0"),
        ("llama3.1", "llama3.1"),
        ("my own terms", "other"),
        ("not stated", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_licence_gets_the_hubs_identifier(stated, expected):
    assert hub_licence(stated) == expected


def test_several_licences_are_a_list_one_is_none():
    assert hub_licences(["MIT", "mit"]) == "mit"
    assert hub_licences(["MIT", "not stated"]) == ["mit", "unknown"]
    assert hub_licences([]) == "unknown"


def test_a_known_licence_has_a_page():
    assert licence_address("cc-by-4.0") == "https://spdx.org/licenses/CC-BY-4.0.html"
    assert licence_address("my own terms") == "my own terms"
