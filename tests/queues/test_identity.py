import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queues.identity import message_id, new_claim_id, new_generation, place_of

places = st.integers(min_value=0, max_value=2**63 - 1)
generations = st.text("0123456789abcdef", min_size=16, max_size=16)


@settings(deadline=None)
@given(places, generations)
def test_an_id_tells_its_place(place, generation):
    assert place_of(message_id(place, generation), generation) == place


@settings(deadline=None)
@given(places, places, generations)
def test_the_order_of_ids_is_the_order_of_places(one, other, generation):
    assert (message_id(one, generation) < message_id(other, generation)) == (one < other)


@settings(deadline=None)
@given(places, generations, generations)
def test_a3_an_id_of_another_queue_is_foreign(place, theirs, ours):
    expected = place if theirs == ours else None
    assert place_of(message_id(place, theirs), ours) == expected


@settings(deadline=None)
@given(st.text(), generations)
def test_any_text_but_an_id_has_no_place(text, generation):
    looks_right = len(text) == 32 and set(text) <= set("0123456789abcdef") and text.endswith(generation)
    assert looks_right or place_of(text, generation) is None
    assert place_of(text + generation, generation) is None or len(text) == 16


GENERATION = "00112233445566ff"
ID = message_id(10, GENERATION)


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        GENERATION,
        ID[1:],
        "0" + ID,
        ID + "\n",
        "\n" + ID[1:],
        " " + ID[1:],
        "+" + ID[1:],
        "-" + ID[1:],
        "0_0" + ID[3:],
        "0x" + ID[2:],
        "g" + ID[1:],
        "\N{ARABIC-INDIC DIGIT ONE}" + ID[1:],
        "\N{FULLWIDTH DIGIT ONE}" + ID[1:],
        "\N{FULLWIDTH LATIN SMALL LETTER A}" + ID[1:],
    ],
)
def test_a_malformed_id_has_no_place(malformed):
    assert place_of(malformed, GENERATION) is None


@pytest.mark.parametrize("shouted", [ID.upper(), ID[:16].upper() + GENERATION, ID[:16] + GENERATION.upper()])
def test_an_id_in_capitals_is_another_text_and_so_another_marker(shouted):
    assert ID[15] == "a"
    assert place_of(shouted, GENERATION) is None


def test_a_place_beyond_63_bits_is_none():
    assert place_of("7" + "f" * 15 + GENERATION, GENERATION) == 2**63 - 1
    assert place_of("8" + "0" * 15 + GENERATION, GENERATION) is None


def test_what_is_drawn_has_the_right_form_and_never_comes_again():
    drawn = {new_generation() for _ in range(1000)}
    assert len(drawn) == 1000
    assert all(len(one) == 16 and set(one) <= set(string.hexdigits.lower()) for one in drawn)
    claims = {new_claim_id() for _ in range(1000)}
    assert len(claims) == 1000
    assert all(len(one) == 32 and set(one) <= set(string.hexdigits.lower()) for one in claims)
