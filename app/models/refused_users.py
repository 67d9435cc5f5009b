"""The users as whom nothing is ever done."""

import pwd


class RefusedUsers(frozenset[str]):
    """The names of users whom no task, action or key may be for.

    Names are compared without regard to case, because a directory service may ignore it. A name of digits
    that this machine does not know is refused, too: Slurm takes it for a user id, and 0 for root.
    """

    def __contains__(self, username: object) -> bool:
        name = str(username)
        return super().__contains__(name.lower()) or (name.isdigit() and not _is_known(name))


def _is_known(username: str) -> bool:
    try:
        pwd.getpwnam(username)
    except KeyError:
        return False
    return True
