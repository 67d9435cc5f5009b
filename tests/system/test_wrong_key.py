"""A key of another cluster that the start of the service could not find, because Slurm gave no answer."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.conftest import Cluster, until
from tests.support.real.network import Fault, Network
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.support.tasks import make_task


def test_a_wrong_key_that_the_start_could_not_find_is_an_error(cluster: Cluster, tmp_path: Path) -> None:
    """Slurm 22.05 answers as if it were down; later ones say that it is the token."""
    settings = {"TASK_ALLOWED_SERVICE_USERS": cluster.user, "SLURM_REST_READ_TIMEOUT_SECONDS": "1"}
    key = b"the key of another cluster, 32 bytes"
    with (
        Network(cluster.url) as network,
        SmtpServer(tmp_path) as smtp,
        Service(tmp_path, replace(cluster, url=network.url, key=key), smtp, **settings) as service,
    ):
        submit = partial(service.post, "/submit", {"task": make_task(cluster.user)})

        def names_the_key() -> bool:
            answer = submit()
            kind, error = (answer.status_code, answer.json()["code"]), answer.json()["error"]
            if "22.05" in cluster.name:  # Slurm's clock is asked for before a task is sent
                return kind == (503, "slurm_unavailable") and "the key of this service may be wrong" in error
            return kind == (502, "slurm_error")

        network.fault = Fault.HANG
        service.start()
        network.fault = Fault.NONE
        network.cut()
        # Calls of other threads that were cut may open the circuit breaker after the first answer of Slurm.
        until(lambda: all(names_the_key() for _ in range(5)), 30, "five answers in a row that name the key")
        assert service.stop() == 0
