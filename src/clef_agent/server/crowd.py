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
    """Who is quiet, and who has begun a request that is not whole; each since when.

    Two queues and no search: whoever floods us with connections chooses how long a search takes.
    A request that is whole is in neither for as long as its answer is owed: ``make_room`` passes
    over those that owe something.
    """

    def __init__(self) -> None:
        self._quiet: dict[Member, None] = {}
        self._asking: dict[Member, None] = {}

    def is_quiet(self, member: Member) -> None:
        """``member`` has just connected, or has asked to the end."""
        self._asking.pop(member, None)
        self._quiet.pop(member, None)
        self._quiet[member] = None

    def is_asking(self, member: Member) -> None:
        """``member`` has sent the first byte of a request."""
        self._quiet.pop(member, None)
        self._asking.setdefault(member)

    def is_gone(self, member: Member) -> None:
        """``member`` is no connection any more."""
        self._quiet.pop(member, None)
        self._asking.pop(member, None)

    def make_room(self) -> bool:
        """Ends the connection that has been quiet for longest, else the one that has been asking
        for longest; False where every one of them is owed something.
        """
        for queue in (self._quiet, self._asking):
            for member in queue:
                if member.owes_nothing:
                    self.is_gone(member)
                    member.give_way()
                    return True
        return False
