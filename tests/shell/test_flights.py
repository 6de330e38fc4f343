from hypothesis import given
from hypothesis import strategies as st

from voxvec._flights import Flights


def test_what_nobody_is_buying_is_taken_on():
    claim = Flights().claim([b"a", b"b"], lot=0)

    assert list(claim.mine) == [b"a", b"b"]
    assert claim.theirs == {}
    assert claim.landed()


def test_what_somebody_is_buying_is_waited_for():
    flights = Flights()
    first = flights.claim([b"a", b"b"], lot=0)
    second = flights.claim([b"b", b"c"], lot=0)

    assert (list(second.mine), list(second.theirs)) == ([b"c"], [b"b"])
    assert not second.landed()

    flights.land(first, {b"b": b"row"})

    assert second.landed()
    assert second.rows() == {b"b": b"row"}


def test_what_is_given_up_is_landed_without_a_row():
    flights = Flights()
    first, second = flights.claim([b"a"], lot=0), flights.claim([b"a"], lot=0)

    flights.land(first, {b"a": None})

    assert second.landed()
    assert second.rows() == {}


def test_what_has_landed_stays_when_its_buyer_gives_up_the_rest():
    flights = Flights()
    first = flights.claim([b"a", b"b"], lot=0)
    second = flights.claim([b"a", b"b"], lot=0)

    flights.land(first, {b"a": b"row"})
    flights.land(first, dict.fromkeys(first.mine))

    assert second.landed()
    assert second.rows() == {b"a": b"row"}


def test_what_has_landed_or_was_given_up_can_be_taken_on_again():
    flights = Flights()
    first = flights.claim([b"a", b"b"], lot=0)
    flights.land(first, {b"a": b"row", b"b": None})

    assert list(flights.claim([b"a", b"b"], lot=0).mine) == [b"a", b"b"]


def test_claims_of_different_lots_share_nothing():
    flights = Flights()
    flights.claim([b"a"], lot=256)

    assert list(flights.claim([b"a"], lot=512).mine) == [b"a"]


@given(st.lists(st.tuples(st.lists(st.sampled_from([b"a", b"b", b"c"]), unique=True), st.integers(0, 1)), max_size=8))
def test_each_text_has_one_buyer_at_a_time_and_nobody_waits_for_ever(wishes):
    flights = Flights()
    claims = [flights.claim(names, lot) for names, lot in wishes]

    buyers = [(claim.lot, name) for claim in claims for name in claim.mine]
    assert len(buyers) == len(set(buyers))
    assert {(claim.lot, name) for claim in claims for name in claim.theirs} <= set(buyers)

    for claim in claims:
        flights.land(claim, dict.fromkeys(claim.mine, b"row"))
    assert all(claim.landed() and set(claim.rows()) == set(claim.theirs) for claim in claims)
