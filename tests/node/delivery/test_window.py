"""The exporter's window: nothing is forgotten, nothing counted twice."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from infrasight.node.delivery.lane import Held
from infrasight.node.delivery.window import Window
from infrasight.node.flow import Encoded
from infrasight.schema import Lane


def encoded(seq: int, *, kind: str = "open", rows: int = 1, size: int = 10, more: bool = False) -> Held:
    return Held.new(Encoded(seq, kind, rows, bytes(size), 0, more, epoch=7), Lane.ACTIVITY)


def settle(window: Window, seq: int, *, stored: bool) -> list[Held]:
    return window.settle((7, seq), stored)


def seqs(window: Window) -> list[int]:
    return [batch.id[1] for batch in window.to_send()]


def test_each_is_sent_once_and_in_order() -> None:
    window = Window(100)
    for seq in (1, 2, 3):
        window.add(encoded(seq))
    assert seqs(window) == [1, 2, 3]
    assert seqs(window) == []
    window.add(encoded(4))
    assert seqs(window) == [4]


def test_after_a_new_connection_all_that_are_held_are_sent_again() -> None:
    window = Window(100)
    for seq in (1, 2, 3, 4):
        window.add(encoded(seq))
    sending = window.to_send()
    assert [next(sending).id[1], next(sending).id[1]] == [1, 2]
    settle(window, 1, stored=True)
    window.resend()
    assert seqs(window) == [2, 3, 4]


def test_pieces_are_sent_as_they_come_and_again_from_the_first() -> None:
    window = Window(100)
    pieces = [encoded(1, rows=2, more=True), encoded(2, rows=3), encoded(1, rows=5, more=True), encoded(1, rows=0, size=0)]
    window.add(pieces[0])
    assert list(window.to_send()) == pieces[:1]
    for piece in pieces[1:]:
        window.add(piece)
    assert list(window.to_send()) == pieces[1:]
    window.resend()
    assert list(window.to_send()) == [pieces[0], pieces[2], pieces[3], pieces[1]]
    assert settle(window, 1, stored=True) == [pieces[0], pieces[2], pieces[3]]
    assert (window.acknowledged, window.held_rows()) == ({"open": 7}, {"open": 3})


def test_what_is_asked_for_again_is_sent_again_before_what_was_never_sent() -> None:
    window = Window(100)
    pieces = [encoded(1, more=True), encoded(2), encoded(1), encoded(3)]
    for piece in pieces[:3]:
        window.add(piece)
    assert seqs(window) == [1, 2, 1]
    window.add(pieces[3])
    assert window.retry((7, 1))
    assert list(window.to_send()) == [pieces[0], pieces[2], pieces[3]]
    assert not window.retry((7, 9))
    assert not window.retry((8, 1)), "of another epoch"
    window.add(encoded(4, more=True))
    assert not window.retry((7, 4)), "its end has not been sent"


def test_what_grows_closes_the_window_once_it_is_whole() -> None:
    window = Window(100)
    for _ in range(5):
        window.add(encoded(1, size=90, more=True))
    assert (window.open, window.bytes) == (True, 450)
    assert settle(window, 1, stored=True) == [], "nobody can have stored it"
    window.add(encoded(1, size=0))
    assert not window.open
    assert len(settle(window, 1, stored=True)) == 6
    assert (window.open, window.bytes, len(window)) == (True, 0, 0)


def test_what_is_settled_meanwhile_is_not_sent() -> None:
    window = Window(100)
    for seq in (1, 2, 3):
        window.add(encoded(seq))
    window.resend()
    settle(window, 2, stored=False)
    assert seqs(window) == [1, 3]


def test_it_is_open_below_its_limit() -> None:
    window = Window(100)
    window.add(encoded(1, size=99))
    assert window.open
    window.add(encoded(2, size=50))
    assert (window.open, window.bytes) == (False, 149)
    settle(window, 2, stored=True)
    assert window.open


def test_one_heavier_than_the_limit_is_let_in_alone() -> None:
    window = Window(100)
    assert window.open
    window.add(encoded(1, size=1000))
    assert not window.open
    settle(window, 1, stored=True)
    assert (window.open, window.bytes) == (True, 0)


def test_an_acknowledgement_told_twice() -> None:
    window = Window(100)
    batch = encoded(1, rows=5)
    window.add(batch)
    assert settle(window, 1, stored=True) == [batch]
    assert settle(window, 1, stored=True) == []
    assert settle(window, 2, stored=False) == []
    assert (window.acknowledged, window.rejected, len(window)) == ({"open": 5}, {}, 0)


def test_what_is_refused_is_counted_apart() -> None:
    window = Window(100)
    for seq, kind in ((1, "open"), (2, "execve"), (3, "open")):
        window.add(encoded(seq, kind=kind, rows=seq))
        settle(window, seq, stored=seq == 1)
    assert (window.acknowledged, window.rejected) == ({"open": 1}, {"execve": 2, "open": 3})


class AnyLife(RuleBasedStateMachine):
    """Whatever comes in whatever order: rows taken in == acknowledged + rejected + held."""

    batches = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(100)
        self.rows: dict[str, int] = {}
        self.held: dict[int, list[Held]] = {}
        self.next = 1

    @rule(target=batches, kind=st.sampled_from(["open", "execve"]), rows=st.integers(1, 9), size=st.integers(1, 150), more=st.booleans())
    def add(self, kind: str, rows: int, size: int, more: bool) -> int:
        self._add(encoded(self.next, kind=kind, rows=rows, size=size, more=more))
        self.next += 1
        return self.next - 1

    @rule(rows=st.integers(0, 9), size=st.integers(0, 150), more=st.booleans())
    def add_a_piece(self, rows: int, size: int, more: bool) -> None:
        for seq in self.growing()[:1]:
            self._add(encoded(seq, kind=self.held[seq][0].kind, rows=rows, size=size, more=more))

    def _add(self, piece: Held) -> None:
        self.window.add(piece)
        self.held.setdefault(piece.id[1], []).append(piece)
        self.rows[piece.kind] = self.rows.get(piece.kind, 0) + piece.rows

    def growing(self) -> list[int]:
        return [seq for seq, pieces in self.held.items() if pieces[-1].more]

    @rule(seq=consumes(batches), stored=st.booleans())
    def settle(self, seq: int, stored: bool) -> None:
        assert settle(self.window, seq, stored=stored) == ([] if seq in self.growing() else self.held.pop(seq))

    @rule(seq=st.integers(-5, -1), stored=st.booleans())
    def settle_a_stranger(self, seq: int, stored: bool) -> None:
        assert settle(self.window, seq, stored=stored) == []

    @rule()
    def reconnect(self) -> None:
        self.window.resend()
        assert list(self.window.to_send()) == [piece for pieces in self.held.values() for piece in pieces]

    @rule()
    def send(self) -> None:
        assert set(seqs(self.window)) <= set(self.held)

    @invariant()
    def nothing_is_lost(self) -> None:
        parts = (self.window.acknowledged, self.window.rejected, self.window.held_rows())
        for kind, rows in self.rows.items():
            assert sum(part.get(kind, 0) for part in parts) == rows
        growing = self.growing()
        whole = [sum(piece.weight() for piece in pieces) for seq, pieces in self.held.items() if seq not in growing]
        assert self.window.bytes == sum(piece.weight() for pieces in self.held.values() for piece in pieces)
        assert len(self.window) == len(self.held)
        assert self.window.open == (not whole or sum(whole) < 100)


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), unique=True))
def test_order_of_acknowledgements_does_not_matter(order: list[int]) -> None:
    window = Window(1000)
    for seq in range(1, 21):
        window.add(encoded(seq, rows=seq))
    for seq in order:
        settle(window, seq, stored=True)
    assert window.acknowledged.get("open", 0) + window.held_rows().get("open", 0) == 210
    window.resend()
    assert seqs(window) == [seq for seq in range(1, 21) if seq not in order]
