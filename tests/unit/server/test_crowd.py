from __future__ import annotations

from clef_agent.server.crowd import Crowd


class Guest:
    """A member that remembers whether it gave way."""

    def __init__(self, *, owes_nothing: bool = True) -> None:
        self.owes_nothing = owes_nothing
        self.gave_way = False

    def give_way(self) -> None:
        self.gave_way = True


def test_who_has_been_quiet_for_longest_makes_room_first() -> None:
    crowd, guests = Crowd(), [Guest(), Guest()]
    for guest in guests:
        crowd.is_quiet(guest)
    crowd.is_quiet(guests[0])  # it has just asked something
    assert crowd.make_room()
    assert [guest.gave_way for guest in guests] == [False, True]


def test_who_asks_makes_room_after_all_who_are_quiet_and_oldest_first() -> None:
    crowd, old, new, quiet = Crowd(), Guest(), Guest(), Guest()
    for guest in (old, new, quiet):
        crowd.is_quiet(guest)
    for guest in (old, new, old):  # that more of it has come makes a request no younger
        crowd.is_asking(guest)
    assert crowd.make_room()
    assert quiet.gave_way
    assert crowd.make_room()
    assert (old.gave_way, new.gave_way) == (True, False)


def test_who_is_owed_something_stays() -> None:
    crowd, quiet, asking = Crowd(), Guest(owes_nothing=False), Guest(owes_nothing=False)
    crowd.is_quiet(quiet)
    crowd.is_asking(asking)
    assert not crowd.make_room()
    quiet.owes_nothing = True
    assert crowd.make_room()
    assert quiet.gave_way


def test_who_is_gone_is_asked_no_more() -> None:
    crowd, guest = Crowd(), Guest()
    crowd.is_asking(guest)
    crowd.is_gone(guest)
    crowd.is_gone(guest)
    assert not crowd.make_room()
    assert not guest.gave_way
