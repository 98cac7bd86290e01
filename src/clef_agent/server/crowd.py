"""All connections of a server, in the order in which they may be asked to give way."""

from __future__ import annotations

from typing import Protocol


class Member(Protocol):
    """A connection, as far as room is concerned."""

    @property
    def owes_nothing(self) -> bool:
        """Whether all that was asked, to its end, has been answered and sent."""
        ...

    def give_way(self) -> None:
        """Ends the connection at once."""
        ...


class Crowd:
    """Who has made no progress for how long: connected, begun a request, or asked to its end.

    One queue and no search: whoever floods us with connections chooses how long a search takes. It
    does not matter whether a request is under way: a flood of half requests would keep those out
    who have just connected, and have not said anything yet.
    """

    def __init__(self) -> None:
        self._members: dict[Member, None] = {}

    def has_moved(self, member: Member) -> None:
        """``member`` has connected, or sent the first byte of a request, or its last."""
        self._members.pop(member, None)
        self._members[member] = None

    def is_gone(self, member: Member) -> None:
        """``member`` is no connection any more."""
        self._members.pop(member, None)

    def make_room(self) -> bool:
        """Ends the connection that has made no progress for longest; False where every one of
        them is owed something.
        """
        for member in self._members:
            if member.owes_nothing:
                self.is_gone(member)
                member.give_way()
                return True
        return False
