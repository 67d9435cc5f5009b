"""The rules for Prometheus, and what the service answers, as Prometheus itself judges them."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import not_covered
from tests.support.fakes import FakeSlurm
from tests.support.real import RealPartMissing
from tests.support.real.processes import install
from tests.support.web import prepared_app

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", autouse=True)
def promtool(request: pytest.FixtureRequest) -> None:
    """Have promtool installed, which Debian's package of Prometheus brings."""
    try:
        install({"promtool": "prometheus"})
    except RealPartMissing as missing:
        not_covered(request, "promtool", str(missing))


def check(*arguments: str, given: bytes = b"") -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=PACKAGING / "prometheus", input=given, capture_output=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_the_rules_are_valid() -> None:
    check("check", "rules", "slurm-proxy.rules.yml")


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    check("test", "rules", "slurm-proxy.test.yml")


def test_the_answered_metrics_follow_the_conventions(tmp_path: Path) -> None:
    with prepared_app(tmp_path / "store.sqlite3", FakeSlurm()) as app:
        client = app.test_client()
        client.post("/submit", data="{}")
        app.extensions["slurm_proxy"].monitor.run_cycle(app.extensions["slurm_proxy"].store.now())
        check("check", "metrics", given=client.get("/metrics").data)


def test_the_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    dashboard = json.loads((PACKAGING / "grafana/slurm-proxy.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions)
    ]
    file = tmp_path / "dashboard.rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML, too
    check("check", "rules", str(file))
