"""A real single-node Slurm of this machine's own distribution, with slurmdbd and slurmrestd, on loopback.

Everything lies in one temporary folder and listens on free ports, so that it stands beside any other.
"""

import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.support.real import RealPartMissing
from tests.support.real.processes import Daemon, answers, free_port, install, only_one_process

_PROGRAMS = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmrestd": "slurmrestd",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mariadbd": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
    "scontrol": "slurm-client",
    "/usr/lib/x86_64-linux-gnu/slurm-wlm/auth_jwt.so": "slurm-wlm-jwt-plugin",
    "/usr/lib/x86_64-linux-gnu/slurm-wlm/accounting_storage_mysql.so": "slurm-wlm-mysql-plugin",
    "/usr/lib/x86_64-linux-gnu/slurm-wlm/select_cons_tres.so": "slurm-wlm-basic-plugins",
    "/usr/lib/x86_64-linux-gnu/slurm-wlm/job_submit_lua.so": "slurm-wlm-basic-plugins",
}
_REST_USER = "slurmrest-test"
_NODE = "node1"
_PLAIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class SlurmCluster:
    """Enter it to have `url`, `key_path` and `version`; users alice and bob may submit."""

    users = ("alice", "bob")

    def __init__(self, min_job_age: int = 30, *, submit_rules: str | None = None) -> None:
        """Describe a cluster; `submit_rules` is the text of the site's job_submit.lua."""
        self._min_job_age = min_job_age
        self._submit_rules = submit_rules
        self._daemons: dict[str, Daemon] = {}
        self._ready: dict[str, Callable[[], bool]] = {}
        self._folder = Path()
        self._ports: dict[str, int] = {}
        self.url = ""
        self.version = ""

    @property
    def key_path(self) -> Path:
        return self._folder / "jwt_hs256.key"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise RealPartMissing("only root can install and start a Slurm cluster")
        install(_PROGRAMS)
        self._folder = Path(tempfile.mkdtemp(prefix="slurm-proxy-slurm-"))
        try:
            self._prepare()
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if "slurmctld" in self._daemons:
            for user in self.users:
                subprocess.run(
                    ["scancel", "-Q", "-u", user], env=self._environment(), timeout=20, check=False
                )
        for name in reversed(list(self._daemons)):
            self._daemons.pop(name).stop(seconds=30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, *argv: str, user: str | None = None) -> str:
        """The output of a Slurm command as root or as `user`; CalledProcessError if it fails."""
        done = subprocess.run(
            argv,
            env=self._environment(),
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd=pwd.getpwnam(user).pw_dir if user else "/",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    @contextmanager
    def configured(self, line: str) -> Iterator[None]:
        """Let the cluster run with one more line in its slurm.conf."""
        path = self._folder / "slurm.conf"
        before = path.read_bytes()
        try:
            path.write_bytes(before + f"{line}\n".encode())
            self.run("scontrol", "reconfigure")
            yield
        finally:
            path.write_bytes(before)
            self.run("scontrol", "reconfigure")

    def port(self, daemon: str) -> int:
        """Return the port that a daemon listens on."""
        return self._ports[daemon]

    def stop_daemon(self, name: str) -> None:
        self._daemons[name].stop()

    def start_daemon(self, name: str) -> None:
        self._daemons[name].start()
        self._daemons[name].ready(self._ready[name], 60)

    def signal_daemon(self, name: str, number: int) -> None:
        self._daemons[name].send(number)

    # --- setting up -------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._folder.chmod(0o755)
        for user in (*self.users, _REST_USER):
            make_user(user)
        for name, owner in (
            ("munge", "munge"),
            ("mysql", "slurm"),
            ("mysql-tmp", "slurm"),
            ("log", "slurm"),
            ("spool", "slurm"),
            ("run", "slurm"),
        ):
            (self._folder / name).mkdir()
            shutil.chown(self._folder / name, owner, owner)
        (self._folder / "spoold").mkdir()
        self._write("munge/munge.key", secrets.token_bytes(1024), "munge", 0o400)
        self._write("jwt_hs256.key", secrets.token_bytes(32), "slurm", 0o600)
        self._ports = {
            name: free_port() for name in ("slurmctld", "slurmd", "slurmdbd", "mariadbd", "slurmrestd")
        }
        self.version = _output("slurmctld", "-V").split()[-1]
        self._write("slurm.conf", self._slurm_conf().encode(), "root", 0o644)
        if self._submit_rules is not None:
            self._write("job_submit.lua", self._submit_rules.encode(), "root", 0o644)
        self._write("slurmdbd.conf", self._slurmdbd_conf().encode(), "slurm", 0o600)
        # Two GPUs that are none: Slurm only looks whether there is such a file.
        gpus = "".join(f"NodeName={_NODE} Name=gpu File=/dev/{name}\n" for name in ("null", "zero"))
        self._write("gres.conf", gpus.encode(), "root", 0o644)
        # Cgroups are of no use in a container; 22.05 can only be told so by a plugin that does nothing.
        plugin = "cgroup/v1" if self.version.startswith(("22.", "23.02")) else "disabled"
        self._write("cgroup.conf", f"CgroupPlugin={plugin}\n".encode(), "root", 0o644)

    def _start_all(self) -> None:
        socket_path = self._munge_socket()
        munge = self._folder / "munge"
        self._daemon(
            "munged",
            [
                "munged",
                "--foreground",
                "--force",
                f"--socket={socket_path}",
                f"--key-file={munge}/munge.key",
                f"--pid-file={munge}/pid",
                f"--log-file={munge}/log",
                f"--seed-file={munge}/seed",
            ],
            socket_path.exists,
            user="munge",
        )
        self._start_mariadb()
        self._daemon("slurmdbd", ["slurmdbd", "-D"], self._accounting_answers, user="slurm")
        self._make_accounts()
        self._daemon("slurmctld", ["slurmctld", "-D", "-i"], self._controller_answers, user="slurm")
        self._daemon("slurmd", ["slurmd", "-D"], self._node_is_idle)
        port = self._ports["slurmrestd"]
        self._daemon(
            "slurmrestd",
            ["slurmrestd", "-a", "rest_auth/jwt", f"127.0.0.1:{port}"],
            lambda: answers(port),
            user=_REST_USER,
            env={"SLURM_JWT": "daemon"},
        )
        self.url = f"http://127.0.0.1:{port}"

    def _daemon(
        self,
        name: str,
        argv: list[str],
        ready: Callable[[], bool],
        user: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        log = self._folder / f"{name}.out"
        daemon = Daemon(argv, log, user=user, env={**self._environment(), **(env or {})})
        self._daemons[name], self._ready[name] = daemon, ready
        self.start_daemon(name)

    def _start_mariadb(self) -> None:
        data, sock = self._folder / "mysql", self._folder / "run/mysqld.sock"
        command = [
            "mariadb-install-db",
            "--no-defaults",
            "--user=slurm",
            f"--datadir={data}",
            "--skip-test-db",
        ]
        # A server that starts removes the temporary tables of all others from a folder that they share.
        temporary = {"TMPDIR": str(self._folder / "mysql-tmp")}
        _output(*command, "--auth-root-authentication-method=normal", env={**_PLAIN, **temporary})
        options = f"""--no-defaults --user=slurm --datadir={data} --socket={sock} --pid-file={self._folder}/run/mariadbd.pid
            --bind-address=127.0.0.1 --port={self._ports["mariadbd"]} --skip-name-resolve
            --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=2
            --performance-schema=OFF""".split()
        client = ["mariadb", "--no-defaults", "-uroot", f"--socket={sock}", "-e"]
        self._daemon(
            "mariadbd", ["mariadbd", *options], lambda: _succeeds(*client, "SELECT 1"), env=temporary
        )
        _output(
            *client,
            "CREATE USER 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm'; CREATE DATABASE slurm_acct_db;"
            "GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1'; FLUSH PRIVILEGES;",
        )

    def _make_accounts(self) -> None:
        self.run("sacctmgr", "-i", "-Q", "add", "cluster", "tests")
        self.run(
            "sacctmgr",
            "-i",
            "-Q",
            "add",
            "account",
            "users",
            "Cluster=tests",
            "Description=x",
            "Organization=x",
        )
        for user in self.users:
            self.run("sacctmgr", "-i", "-Q", "add", "user", user, "Account=users", "Cluster=tests")

    def _environment(self) -> dict[str, str]:
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        return {"SLURM_CONF": str(self._folder / "slurm.conf"), "PATH": path, "LANG": "C.UTF-8"}

    def _accounting_answers(self) -> bool:
        ready = answers(self._ports["slurmdbd"])
        return ready and _succeeds("sacctmgr", "-n", "-P", "list", "cluster", env=self._environment())

    def _controller_answers(self) -> bool:
        return "UP" in (_attempt("scontrol", "ping", env=self._environment()) or "")

    def _node_is_idle(self) -> bool:
        state = _attempt("sinfo", "-h", "-N", "-n", _NODE, "-o", "%T", env=self._environment()) or ""
        if "down" in state or "drained" in state:
            _attempt("scontrol", "update", f"nodename={_NODE}", "state=resume", env=self._environment())
        return re.match("idle|mixed|allocated|completing", state) is not None

    def _munge_socket(self) -> Path:
        return self._folder / "munge/socket"

    def _write(self, name: str, content: bytes, owner: str, mode: int) -> None:
        path = self._folder / name
        path.touch(mode=mode)
        path.write_bytes(content)
        path.chmod(mode)
        shutil.chown(path, owner, owner)

    def _slurm_conf(self) -> str:
        host = socket.gethostname().split(".")[0]
        return f"""
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={self._ports["slurmctld"]}
SlurmdPort={self._ports["slurmd"]}
SlurmUser=slurm
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={self._munge_socket()}
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={self.key_path}
StateSaveLocation={self._folder}/spool
SlurmdSpoolDir={self._folder}/spoold
SlurmctldPidFile={self._folder}/run/slurmctld.pid
SlurmdPidFile={self._folder}/run/slurmd.pid
SlurmctldLogFile={self._folder}/log/slurmctld.log
SlurmdLogFile={self._folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=10000,batch_sched_delay=0,default_queue_depth=500
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
KillWait=2
MinJobAge={self._min_job_age}
FirstJobId=700001
InactiveLimit=0
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self._ports["slurmdbd"]}
AccountingStoragePass={self._munge_socket()}
AccountingStorageEnforce=associations
GresTypes=gpu
Licenses=x:4
TrackWCKey=yes
NodeName={_NODE} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 Boards=1 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=8000 Gres=gpu:2 Feature=fast,slow State=UNKNOWN
PartitionName=debug Nodes={_NODE} Default=YES MaxTime=7-00:00:00 DefaultTime=60 DefMemPerCPU=100 State=UP
PartitionName=hpcz-test Nodes={_NODE} Default=NO MaxTime=7-00:00:00 DefaultTime=10 DefMemPerCPU=100 State=UP
{self._further_lines()}
"""

    def _further_lines(self) -> str:
        return "JobSubmitPlugins=lua" if self._submit_rules is not None else ""

    def _slurmdbd_conf(self) -> str:
        return f"""
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={self._ports["slurmdbd"]}
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket={self._munge_socket()}
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={self.key_path}
CommunicationParameters=NoInAddrAny
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self._ports["mariadbd"]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile={self._folder}/log/slurmdbd.log
PidFile={self._folder}/run/slurmdbd.pid
"""


def make_user(name: str) -> None:
    """Make a user, unless there is one.

    Raises:
        OSError, RuntimeError: It cannot be made.
    """
    with only_one_process("useradd"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            home = ["-M", "-s", "/usr/sbin/nologin"] if name == _REST_USER else ["-m", "-s", "/bin/bash"]
            _output("useradd", "-U", *home, name)


def _output(*argv: str, env: dict[str, str] | None = None) -> str:
    """What a command prints; RuntimeError with its own words if it fails."""
    done = subprocess.run(argv, env=env or _PLAIN, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed: {done.stderr[-1000:] or done.stdout[-1000:]}")
    return done.stdout


def _attempt(*argv: str, env: dict[str, str] | None = None) -> str | None:
    try:
        return _output(*argv, env=env)
    except (RuntimeError, subprocess.TimeoutExpired):
        return None


def _succeeds(*argv: str, env: dict[str, str] | None = None) -> bool:
    return _attempt(*argv, env=env) is not None
