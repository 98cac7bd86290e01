from __future__ import annotations

from clef_agent.server.crowd import Crowd


class Guest:
    """A member that remembers whether it gave way."""

    def __init__(self, *, owes_nothing: bool = True) -> None:
        self.owes_nothing = owes_nothing
        self.gave_way = False

    def give_way(self) -> None:
        self.gave_way = True


def test_who_has_not_moved_for_longest_makes_room_first() -> None:
    crowd, guests = Crowd(), [Guest(), Guest(), Guest()]
    for guest in guests:
        crowd.has_moved(guest)
    crowd.has_moved(guests[0])
    assert crowd.make_room()
    assert [guest.gave_way for guest in guests] == [False, True, False]
    assert crowd.make_room()
    assert [guest.gave_way for guest in guests] == [False, True, True]


def test_who_is_owed_something_stays() -> None:
    crowd, old, new = Crowd(), Guest(owes_nothing=False), Guest(owes_nothing=False)
    crowd.has_moved(old)
    crowd.has_moved(new)
    assert not crowd.make_room()
    new.owes_nothing = True
    assert crowd.make_room()
    assert (old.gave_way, new.gave_way) == (False, True)


def test_who_is_gone_is_asked_no_more() -> None:
    crowd, guest = Crowd(), Guest()
    crowd.has_moved(guest)
    crowd.is_gone(guest)
    crowd.is_gone(guest)
    assert not crowd.make_room()
    assert not guest.gave_way
