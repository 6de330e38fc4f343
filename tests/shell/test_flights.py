from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from voxvec._flights import Flights
from voxvec.errors import RefusedError


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


NAMES = [b"a", b"b", b"c", b"d"]
some = st.sets(st.sampled_from(NAMES))


class Traffic(RuleBasedStateMachine):
    """Whoever buys, lands, is refused, gives up or is interrupted: everybody learns what came of what they wait for."""

    claims = Bundle("claims")

    def __init__(self):
        super().__init__()
        self.flights, self.buyers, self.fates, self.known, self.rows = Flights(), {}, {}, [], 0

    @rule(target=claims, names=some, lot=st.integers(0, 1))
    def claim(self, names, lot):
        claim = self.flights.claim(sorted(names), lot)
        assert set(claim.mine) | set(claim.theirs) == names
        for name in names:
            assert (name in claim.theirs) == ((lot, name) in self.buyers)
        self.known.append((claim, {name: self.buyers[lot, name] for name in claim.theirs}))
        for name in claim.mine:
            self.buyers[lot, name] = id(claim), name
        return claim

    def over(self, claim, name, fate):
        """Note what came of a text, unless that is known already."""
        self.fates.setdefault((id(claim), name), fate)
        if self.buyers.get((claim.lot, name)) == (id(claim), name):
            del self.buyers[claim.lot, name]

    @rule(claim=claims, names=some)
    def send(self, claim, names):
        """Some are on their way: they stay claimed even if their buyer is interrupted."""
        claim.aloft.update(name for name in names & set(claim.mine) if (id(claim), name) not in self.fates)

    @rule(claim=claims, names=some)
    def land(self, claim, names):
        self.rows += 1
        row = b"%d" % self.rows
        rows = dict.fromkeys(names & set(claim.mine), row)
        self.flights.land(claim, rows)
        for name in rows:
            self.over(claim, name, row)

    @rule(claim=claims, names=some)
    def refuse(self, claim, names):
        error = RefusedError("no", kind="refused", status=400)
        rows = dict.fromkeys(names & set(claim.mine))
        self.flights.land(claim, rows, error)
        for name in rows:
            self.over(claim, name, error)

    @rule(claim=claims)
    def leave(self, claim):
        """A call ends, with whatever of it nobody will land any more."""
        rest = claim.rest()
        assert not set(rest) & claim.aloft
        self.flights.land(claim, dict.fromkeys(rest))
        for name in rest:
            self.over(claim, name, None)

    @rule(claim=consumes(claims))
    def finish(self, claim):
        """What was on its way comes to an end too."""
        self.flights.land(claim, dict.fromkeys(claim.mine))
        for name in claim.mine:
            self.over(claim, name, None)

    @invariant()
    def each_text_is_in_the_air_once_and_forgotten_when_it_lands(self):
        assert set(self.flights._slots) == set(self.buyers)
        assert all((claim.lot, name) in self.buyers for claim, _ in self.known for name in claim.aloft)

    @invariant()
    def everybody_knows_what_came_of_what_they_wait_for(self):
        for claim, theirs in self.known:
            fates = {name: self.fates[buyer] for name, buyer in theirs.items() if buyer in self.fates}
            assert claim.landed() == (len(fates) == len(theirs))
            assert claim.rows() == {name: fate for name, fate in fates.items() if isinstance(fate, bytes)}
            assert claim.errors() == {name: fate for name, fate in fates.items() if isinstance(fate, RefusedError)}

    def teardown(self):
        for claim, _ in self.known:
            self.flights.land(claim, dict.fromkeys(claim.mine))
        assert self.flights._slots == {}
        assert all(claim.landed() for claim, _ in self.known)


Traffic.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
test_any_traffic = Traffic.TestCase
