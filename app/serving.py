"""A development server in threads of this process; production uses gunicorn (see docker/)."""

import threading
from types import TracebackType
from typing import Self

from flask import Flask
from werkzeug.serving import make_server

from app.constants import Settings
from app.services import Services, prepare_or_exit


class Server:
    """Serves an application and runs its monitor while it is entered."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        """SettingsError where anybody could reach it, and nobody must prove who he is."""
        settings.check_address(settings.FLASK_APP_HOST)
        self._services: Services = app.extensions["slurm_proxy"]
        self._settings = settings
        self._http = make_server(settings.FLASK_APP_HOST, settings.FLASK_APP_PORT, app, threaded=True)
        self._thread = threading.Thread(target=self._http.serve_forever, name="http", daemon=True)

    @property
    def url(self) -> str:
        return f"http://{self._settings.FLASK_APP_HOST}:{self._http.server_port}"

    def __enter__(self) -> Self:
        prepare_or_exit(self._services, self._settings)
        self._services.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._services.stop()

    def wait(self) -> None:
        """Until an exception such as KeyboardInterrupt ends the main thread's wait."""
        while self._thread.is_alive():
            self._thread.join(1)
