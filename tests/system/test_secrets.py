"""No output of a server contains a secret, and no library has a known vulnerability."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.models.record import NotificationStatus
from tests.conftest import Cluster, not_covered, until
from tests.support.channels import CHANNELS_IN_A_FOLDER, Channel, as_variable, started
from tests.support.real.identity_provider import AUDIENCE, IdentityProvider
from tests.support.real.smtp import SmtpServer
from tests.support.service import ROOT, Service
from tests.support.tasks import make_task

WORDS = "the-words-of-a-message"
VALUE = "the-value-of-a-variable"


@pytest.mark.timed
def test_no_secret_is_logged_at_any_level(local_cluster: Cluster, local_user: str, tmp_path: Path) -> None:
    channels: list[Channel] = [make(tmp_path) for make in CHANNELS_IN_A_FOLDER.values()]
    trail = tmp_path / "audit.jsonl"
    (tmp_path / "unused").mkdir()
    with ExitStack() as stack:
        provider = stack.enter_context(IdentityProvider())
        smtp = stack.enter_context(SmtpServer(tmp_path / "unused"))
        settings = {
            "TASK_ALLOWED_SERVICE_USERS": local_user,
            "ACCESS_METHODS": "keys,oidc",
            "AUDIT_LOG_PATH": str(trail),
            "LOG_LEVEL": "DEBUG",
            "NOTIFICATIONS_SMTP_SECURITY": "starttls",
            "OIDC_ISSUER": provider.issuer,
            "OIDC_AUDIENCE": AUDIENCE,
            "OIDC_USER_CLAIM": "preferred_username",
            "OIDC_JWKS_URL": f"{provider.url}/keys",
            "PYTHONWARNINGS": "ignore",
        }
        params: dict[str, Any] = {}
        for channel in channels:
            stack.enter_context(contextmanager(started)(channel))
            given = channel.settings(channel.port)
            settings |= {name: as_variable(value) for name, value in given.items()}
            params[channel.method] = channel.params()
        params["email"]["body"] = params["slack"]["msg"] = WORDS
        service = stack.enter_context(Service(tmp_path, local_cluster, smtp, **settings))
        key = service.flask(
            "keys", "create", "pipeline", "--any-user", "--scope", "submit", "--scope", "read"
        )
        service.start()
        token = provider.token(preferred_username=local_user)
        proofs = [
            key,
            token,
            f"{key[:-5]}wrong",
            provider.token(aud="elsewhere"),
            provider.forged(),
            "nonsense",
        ]
        tasks = []
        for proof in proofs:
            task = make_task(local_user, "/tmp/slurm-proxy-secrets", cwd="/tmp", cmd="true", params=[])
            task["slurm"] = {"mem": 10, "environment": {"TOKEN": VALUE, "PATH": "/bin"}}
            task["notification"] = {"methods": list(params), "params": params}
            answer = service.post("/submit", {"task": task}, Authorization=f"Bearer {proof}")
            assert answer.status_code == (200 if proof in (key, token) else 401), answer.text
            tasks.append(task)
        broken = {"task": {**tasks[0], "uuid": "b", "slurm": {"mem": VALUE}}}
        assert service.post("/submit", broken, Authorization=f"Bearer {key}").status_code == 400

        def all_sent() -> bool:
            path = f"/monitor/task_uuid/{tasks[0]['uuid']}"
            record = service.get(path, Authorization=f"Bearer {key}")
            return {item["status"] for item in record["monitor"]["notifications"]} == {
                NotificationStatus.SENT
            }

        until(all_sent, 60, f"all messages (see {service.log})")
        channels[0].stop()  # what is said of a server that is away
        again = {**tasks[0], "uuid": "again"}
        assert service.post("/submit", {"task": again}, Authorization=f"Bearer {key}").status_code == 200
        until(lambda: "outage of the channel" in service.log.read_text(), 60, "a failure in the log")
        assert service.stop() == 0
        channels[0].start()
    written = service.log.read_text() + trail.read_text()
    assert " DEBUG " in written
    assert len(trail.read_text().splitlines()) == len(proofs) + 3, "with the creation of the key"
    secret = [*proofs, key.split("_", 2)[2], WORDS, VALUE, local_cluster.key.decode()]
    secret += [words for channel in channels for words in channel.secrets]
    secret += [service.environment["SLURM_JWT_HS256_KEY_BASE64"], "X-SLURM-USER-TOKEN", "eyJ"]
    assert [words for words in secret if words in written] == []


@pytest.mark.real
def test_no_dependency_has_a_known_vulnerability(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    argv = [sys.executable, "-m", "pip_audit", "--requirement", "requirements.txt", "--no-deps"]
    argv += ["--disable-pip", "--format", "json", "--output", str(report), "--progress-spinner", "off"]
    done = subprocess.run(
        argv, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False
    )
    if not report.exists():
        not_covered(
            request, "the advisories of PyPI", (done.stderr.strip().splitlines() or ["no answer"])[-1]
        )
    found = json.loads(report.read_text())["dependencies"]
    assert [item for item in found if item.get("vulns")] == []
    unknown = [item["name"] for item in found if "skip_reason" in item]
    if unknown:
        not_covered(request, "the advisories of PyPI", f"this index has none for {', '.join(unknown)}")
