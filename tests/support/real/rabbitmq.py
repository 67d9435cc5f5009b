"""A real RabbitMQ of this machine's distribution, on loopback, with an epmd of its own.

Everything lies in one temporary folder and listens on free ports, so that it stands beside any other.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from pika import BlockingConnection, ConnectionParameters, PlainCredentials

from tests.support.real import RealPartMissing
from tests.support.real.certificates import make_certificate
from tests.support.real.processes import Daemon, answers, install

_PROGRAMS = {"rabbitmq-server": "rabbitmq-server", "epmd": "erlang-base"}
_FOLDER_OF_PROGRAMS = "/usr/lib/rabbitmq/bin"  # Debian's wrappers beside it would use the system's folders
_USER = "rabbitmq"
_NODE = "rabbit-test@localhost"


class RabbitMq:
    """Enter it to have `port` and `tls_port` on `host`; what it keeps survives `stop` and `start`."""

    host = "127.0.0.1"
    username = "proxy"
    password = "the broker's secret words"

    def __init__(self) -> None:
        self.port = self.tls_port = 0
        self._folder = Path()
        self._epmd: Daemon | None = None
        self._broker: Daemon | None = None
        self._environment: dict[str, str] = {}

    @property
    def ca_path(self) -> Path:
        return self._folder / "ca.pem"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise RealPartMissing("only root can install and start a RabbitMQ")
        install(_PROGRAMS)
        self._folder = Path(tempfile.mkdtemp(prefix="slurm-proxy-rabbitmq-"))
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for daemon in (self._broker, self._epmd):
            if daemon is not None:
                daemon.stop(seconds=30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Does nothing if it runs."""
        assert self._broker is not None
        if not self._broker.is_alive():
            self._broker.start()
        self._broker.ready(lambda: answers(self.port) and answers(self.tls_port), 120)

    def stop(self) -> None:
        assert self._broker is not None
        self._broker.stop(signal.SIGTERM, seconds=60)

    def connect(self) -> BlockingConnection:
        """For a test that looks on, or takes what came."""
        login = PlainCredentials(self.username, self.password)
        return BlockingConnection(ConnectionParameters(self.host, self.port, credentials=login))

    def control(self, *arguments: str) -> None:
        """rabbitmqctl; CalledProcessError if it fails."""
        subprocess.run(
            [f"{_FOLDER_OF_PROGRAMS}/rabbitmqctl", "-q", *arguments],
            env=self._environment,
            user=_USER,
            group=_USER,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            timeout=120,
            check=True,
        )

    def _prepare(self) -> None:
        self.port, self.tls_port, epmd_port, distribution_port = _quiet_ports(4)
        make_certificate(self.ca_path, self._folder / "key.pem")
        (self._folder / "rabbitmq.conf").write_text(self._configuration())
        (self._folder / "enabled_plugins").write_text("[].\n")
        for path in (self._folder, *self._folder.iterdir()):
            shutil.chown(path, _USER, _USER)
        self._environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self._folder),  # where the nodes' cookie is
            "ERL_EPMD_ADDRESS": self.host,
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),  # there is none
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "rabbitmq-env.conf"),  # nor this
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_NODENAME": _NODE,
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +S 1:1"
            ),
        }
        self._epmd = Daemon(
            ["epmd", "-port", str(epmd_port), "-address", self.host], self._folder / "epmd.log", user=_USER
        )
        self._epmd.start()
        self._epmd.ready(lambda: answers(epmd_port))
        self._broker = Daemon(
            [f"{_FOLDER_OF_PROGRAMS}/rabbitmq-server"],
            self._folder / "rabbitmq.log",
            user=_USER,
            env=self._environment,
        )

    def _configuration(self) -> str:
        return f"""
listeners.tcp.default = {self.host}:{self.port}
listeners.ssl.default = {self.host}:{self.tls_port}
ssl_options.cacertfile = {self.ca_path}
ssl_options.certfile = {self.ca_path}
ssl_options.keyfile = {self._folder}/key.pem
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
default_user = {self.username}
default_pass = {self.password}
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.9
log.console = true
log.console.level = warning
log.file = false
"""


def _quiet_ports(count: int) -> list[int]:
    """Free ones that the kernel gives to no client: the broker cannot share its port, even for a moment."""
    found: list[int] = []
    for port in random.sample(range(10_000, 32_000), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RealPartMissing("there are no free ports for RabbitMQ")
