"""Find signs of an outage of slurmctld in the answers of slurmrestd.

What slurmrestd answers while slurmctld accepts no connection was measured on Slurm 22.05.8, 24.11.5 and
26.05.5. Requests are answered after 9 to 20 s: by 24.11 and 26.05 with status 502, mostly with error 1800, or
with error -1 where they read jobs; by 22.05 with error -1, or 1800 for a submission. A ping is answered after
1 ms by 24.11 and 26.05 ("pinged": "DOWN", "responding": false), after 9 s by 22.05 (error -1).

While slurmctld accepts connections and answers nothing (a stall, SIGSTOP), a ping takes as long as the stall.
After 10 s, slurmrestd answers it as if slurmctld were down. Other requests are answered after 10 to 20 s with
status 504 and error 5004, or with error -1.

A request with a token that Slurm refuses is answered at once, by 22.05 with error -1, too. 24.11 then
answers a ping as if slurmctld were down.
"""

from app.slurm.reply import Reply
from app.slurm.values import Raw, as_object

_NO_CONTROLLER = 1800
_NOT_PERMITTED = 1
_BAD_GATEWAY = 502
_QUICK_SECONDS = 5.0  # error -1 that comes sooner is the refusal of a token (22.05), and no outage


def proves_outage(reply: Reply, seconds: float) -> bool:
    """Return whether a server error proves that slurmctld, or slurmrestd behind a proxy, does not answer.

    Args:
        reply: The answer, which contains no refusal of slurmctld.
        seconds: How long the answer took.
    """
    numbers = {number for number, _ in reply.errors()}
    if reply.status == _BAD_GATEWAY or _NO_CONTROLLER in numbers:
        return True
    return reply.is_unspecified_error and seconds >= _QUICK_SECONDS


def may_hide_outage(reply: Reply) -> bool:
    """Return whether a refusal may hide an outage: 26.05 answers a cancellation with 403 and error 1."""
    return reply.status < 500 and any(number == _NOT_PERMITTED for number, _ in reply.errors())


def is_controller_up(ping: Reply) -> bool | None:
    """Return whether any slurmctld answers, according to the answer to a ping; None if that is unclear."""
    if ping.status != 200:
        return None
    pings = ping.body.get("pings")
    answers = [_is_up(as_object(item)) for item in pings] if isinstance(pings, list) else []
    if True in answers:
        return True
    return False if answers and None not in answers else None


def _is_up(ping: Raw) -> bool | None:
    """Return whether one slurmctld answers: 24.11 has both fields, 26.05 only the first, 22.05 neither."""
    if isinstance(responds := ping.get("responding"), bool):
        return responds
    word = ping.get("pinged", ping.get("ping"))
    return {"UP": True, "DOWN": False}.get(word) if isinstance(word, str) else None
