"""List the task names of this server, without anything that is the operator's secret."""

from app.access.authorization import require_scope
from app.messages.plan import Catalogue
from app.models.caller import Caller, Scope
from app.models.caller_answers import CatalogueTask, TaskCatalogue


class CatalogueListing:
    """The use case of `GET /catalogue`."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Create the use case."""
        self._catalogue = catalogue

    def list_all(self, caller: Caller) -> TaskCatalogue:
        """Return all task names, in the operator's order.

        A caller who may submit a task can read its command in the job's script. The parameters of
        notifications stay hidden, because they may hold addresses and tokens.

        Raises:
            Forbidden: The caller may not submit tasks.
        """
        require_scope(caller, Scope.SUBMIT)
        return TaskCatalogue(
            catalogue=[
                CatalogueTask(
                    name=name,
                    description=entry.description,
                    cmd=entry.cmd,
                    default_params=list(entry.default_params),
                    requires_command=entry.requires_command,
                    slurm=entry.slurm,
                    dirs=entry.dirs,
                    parameters=entry.parameters,
                    notification_methods=list(entry.notification.methods),
                )
                for name, entry in self._catalogue.items()
            ]
        )
