"""Refuse tasks, actions and keys for users such as root."""

import pwd


class RefusedUsers(frozenset[str]):
    """Names of users for which every task, action and key is refused.

    Names are compared without regard to case and to a domain after "@", because a directory service may
    ignore both. A name of digits that this machine does not know is refused, too: Slurm takes it for a user
    id, and 0 for root.
    """

    def __contains__(self, username: object) -> bool:
        """Return whether everything is refused for this user."""
        name = str(username).lower()
        if super().__contains__(name) or super().__contains__(name.partition("@")[0]):
            return True
        return name.isdigit() and not _is_known_user(name)


def _is_known_user(username: str) -> bool:
    try:
        pwd.getpwnam(username)
    except KeyError:
        return False
    return True
