"""A real nginx of this machine's distribution, with the configuration that the documentation shows."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Self

from tests.support.real.certificates import make_certificate
from tests.support.real.processes import Daemon, answers, free_port, install

CONFIGURATION = Path(__file__).parents[3] / "docs/how-to/nginx.conf"

_MAIN = """
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {content}
}}
"""


def write_main_configuration(folder: Path, user: str, content: str) -> None:
    """Write the nginx.conf of an nginx that keeps all its files in `folder`.

    Args:
        folder: where the file is written.
        user: the user directive with its semicolon, or nothing.
        content: what stands in `http`.
    """
    (folder / "nginx.conf").write_text(_MAIN.format(user=user, folder=folder, content=content))


def make_daemon(folder: Path) -> Daemon:
    """Return an nginx, not yet started, with the nginx.conf in `folder`."""
    log = str(folder / "error.log")
    return Daemon(["nginx", "-p", str(folder), "-c", "nginx.conf", "-e", log], folder / "output.log")


class Nginx:
    """Enter it to have `url`, whose requests are passed on to the Unix socket `upstream`, and `ca_path`."""

    def __init__(self, upstream: Path, settings: str = "", **replaced: str) -> None:
        """`settings`: lines for `http`. `replaced`: the value of a directive that the file sets."""
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._upstream = upstream
        self._settings = settings
        self._replaced = replaced
        self._folder = Path()
        self._daemon: Daemon | None = None

    @property
    def ca_path(self) -> Path:
        return self._folder / "ca.pem"

    def __enter__(self) -> Self:
        install({"nginx": "nginx"})
        self._folder = Path(tempfile.mkdtemp(prefix="slurm-proxy-nginx-"))
        make_certificate(self.ca_path, self._folder / "key.pem")
        (self._folder / "slurm-proxy.conf").write_text(self._configuration())
        user = "user root;" if os.geteuid() == 0 else ""  # the folders of the tests are private
        content = f"{self._settings}\n    include {self._folder}/slurm-proxy.conf;"
        write_main_configuration(self._folder, user, content)
        self._daemon = make_daemon(self._folder)
        self._daemon.start()
        try:
            self._daemon.ready(lambda: answers(self.port))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._daemon is not None:
            self._daemon.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configuration(self) -> str:
        """Return the documented file with the values of this machine."""
        text = CONFIGURATION.read_text()
        values = {
            "listen": f"127.0.0.1:{self.port} ssl",
            "server_name": "127.0.0.1",
            "ssl_certificate": str(self.ca_path),
            "ssl_certificate_key": str(self._folder / "key.pem"),
            "proxy_pass": f"http://unix:{self._upstream}",
            **self._replaced,
        }
        for directive, value in values.items():
            text, count = re.subn(rf"(?m)^( +{directive}) [^;]+;", rf"\1 {value};", text)
            assert count == 1, directive
        return text
