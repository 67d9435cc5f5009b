"""What differs between the versions of slurmrestd's API that slurm-proxy speaks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import SlurmRefused

# Newest first. v0.0.39 is left out on purpose: every server that offers it offers v0.0.38 or v0.0.40 too.
SUPPORTED_API_VERSIONS = ("v0.0.45", "v0.0.44", "v0.0.43", "v0.0.42", "v0.0.41", "v0.0.40", "v0.0.38")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One version of the API, by its name, e.g. "v0.0.42"."""

    api: str

    @property
    def _minor(self) -> int:
        return int(self.api.rpartition(".")[2])

    @property
    def is_structured(self) -> bool:
        """The newer form: lists of states, numbers as {set, infinite, number}, environment as a list."""
        return self._minor >= 40

    @property
    def makes_output_folders(self) -> bool:
        """Slurm 24.11 and newer make the folder of an output file; older ones fail the job."""
        return self._minor >= 42

    def environment(self, variables: Mapping[str, str]) -> dict[str, str] | list[str]:
        if self.is_structured:
            return [f"{name}={value}" for name, value in variables.items()]
        return dict(variables)

    def exclusive(self, *, user_only: bool) -> dict[str, Any]:
        if self.is_structured:
            return {"shared": ["user" if user_only else "none"]}
        return {"exclusive": "user" if user_only else "exclusive"}

    def requeue(self, *, wanted: bool) -> dict[str, Any]:
        """Return the field that lets Slurm requeue the job after a failure of its node, or forbids it.

        v0.0.38 reads `requeue` as true, whatever its value. Its parser also accepts `no_requeue`, which its
        OpenAPI document omits.
        """
        if self.is_structured or wanted:
            return {"requeue": wanted}
        return {"no_requeue": True}

    def per_task(self, resource: str, count: int) -> str:
        """Return a resource that each task gets; Slurm 23.11 separates the count by a colon."""
        return f"{resource}{':' if self._minor == 40 else '='}{count}"

    def time_limit(self, minutes: int) -> int | dict[str, Any]:
        """Return the field of a time limit; 0 minutes stand for none.

        From v0.0.40 on a plain 0 is a limit of no time at all (24.11).
        """
        if minutes or not self.is_structured:
            return minutes
        return {"set": True, "infinite": True, "number": 0}

    def switches(self, count: int, seconds: int | None) -> dict[str, Any]:
        """Return the fields for at most `count` switches, and how long the job may wait for them.

        Raises:
            SlurmRefused: v0.0.38 refuses the field in every form: "Operation not permitted" (22.05).
        """
        if not self.is_structured:
            raise SlurmRefused(
                f"task.slurm.switches: this cluster's REST API, {self.api}, does not accept it"
            )
        wait = {} if seconds is None else {"wait_for_switch": seconds}
        return {"required_switches": count, **wait}

    def moment(self, seconds: int) -> int | str:
        """A time in a submission; `seconds` since the epoch."""
        return seconds if self.is_structured else f"uts{seconds}"

    def update_time(self, seconds: int) -> str:
        """The same as a query value; v0.0.40 and v0.0.41 take it only with a prefix."""
        return f"uts{seconds}" if self._minor in (40, 41) else str(seconds)

    def jobs_query(self, job_ids: Sequence[int]) -> list[tuple[str, str]]:
        """Return the query that asks slurmdbd for several jobs at once."""
        if self.is_structured:
            return [("step", str(job_id)) for job_id in job_ids]
        return [("step", ",".join(map(str, job_ids)))]
