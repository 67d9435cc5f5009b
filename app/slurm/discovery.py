"""Discover the API version of slurmrestd."""

from collections.abc import Callable

from app.errors import NoCommonVersion
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest


def find_dialect(exchange: Callable[[SlurmRequest], Reply]) -> Dialect:
    """Return the newest dialect that slurmrestd and this service know. `exchange`: makes a request.

    Raises:
        NoCommonVersion: slurmrestd offers no version that this service supports.
    """
    for api in SUPPORTED_API_VERSIONS:
        if exchange(SlurmRequest("GET", f"/slurm/{api}/ping")).status != 404:
            return Dialect(api)
    reply = exchange(SlurmRequest("GET", "/openapi/v3"))
    paths = reply.body.get("paths")
    listed = [path for path in paths if path.startswith("/slurm/v")] if isinstance(paths, dict) else []
    offered = sorted({path.split("/")[2] for path in listed})
    raise NoCommonVersion(
        f"slurmrestd offers {', '.join(offered) or 'no version'}; "
        f"slurm-proxy supports {SUPPORTED_API_VERSIONS[-1]} to {SUPPORTED_API_VERSIONS[0]}",
        offered,
    )
