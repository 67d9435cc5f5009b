"""The files for Prometheus and Grafana fit the metrics that are served, and the page that explains them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # apprise needs it, too

from app.metrics import PROCESS_METRICS, STORE_METRICS, Kind, Metric
from app.models.health_answers import Parts, PartStatus
from tests.support.access import Site
from tests.unit.web.test_metrics import Scrape

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging/prometheus/slurm-proxy.rules.yml"
RULE_TESTS = ROOT / "packaging/prometheus/slurm-proxy.test.yml"
DASHBOARD = ROOT / "packaging/grafana/slurm-proxy.json"
OPERATE = ROOT / "docs/how-to/operate.md"

METRICS: dict[str, Metric] = {metric.name: metric for metric in (*STORE_METRICS, *PROCESS_METRICS)}


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    for alert in alerts():
        yield alert["expr"]
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])


def served_names(metric: Metric) -> set[str]:
    """Return the names of the series that a scrape has for a metric."""
    endings = ("_bucket", "_count", "_sum") if metric.kind is Kind.HISTOGRAM else ("",)
    return {metric.name + ending for ending in endings}


def test_every_panel_says_what_it_shows() -> None:
    assert [panel["title"] for panel in panels() if not panel.get("description")] == []


def test_every_metric_of_an_expression_is_served_with_its_labels(site: Site) -> None:
    served = {name: metric for metric in METRICS.values() for name in served_names(metric)}
    for expression in expressions():
        used = re.findall(r"(slurm_proxy_\w+)(?:\{(.*?)\})?", expression)
        assert used or expression.startswith("up{"), expression
        for name, matchers in used:
            assert name in served, expression
            own = {"job", "process", "le", *served[name].labels}
            assert set(re.findall(r"(\w+)=", matchers.replace("!~", "=").replace("=~", "="))) <= own
    page = Scrape(site.call("GET", "/metrics").text)
    assert {name.removesuffix("_total") for name in METRICS} == page.families.keys()


def test_every_metric_is_in_the_dashboard_or_in_an_alert() -> None:
    used = " ".join(expressions())
    unused = [
        metric.name for metric in METRICS.values() if not any(name in used for name in served_names(metric))
    ]
    assert unused == []


def test_the_parts_and_statuses_of_alerts_exist() -> None:
    parts, statuses = set(), set()
    for alert in alerts():
        parts |= set(re.findall(r'part="(\w+)"', alert["expr"]))
        statuses |= set(re.findall(r'part="\w+", status=~?"([\w|]+)"', alert["expr"]))
    assert parts == set(Parts.model_fields)
    assert {word for status in statuses for word in status.split("|")} <= set(PartStatus)


def test_the_operators_page_says_what_to_do_at_each_alert() -> None:
    section = OPERATE.read_text().partition("\n## What to do at an alert\n")[2].partition("\n## ")[0]
    paragraphs = dict(re.findall(r"^### (\w+)\n\n(.+?)(?=\n### |\Z)", section, re.M | re.S))
    assert [*paragraphs] == [alert["alert"] for alert in alerts()]
    assert all(len(text.split()) > 15 for text in paragraphs.values())


def test_the_operators_page_has_a_row_for_each_part() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\|$", OPERATE.read_text().partition("## Metrics")[0], re.M)
    assert rows == [*Parts.model_fields]


def test_every_alert_has_a_severity_a_summary_and_a_test() -> None:
    tested = {
        case["alertname"]
        for test in yaml.safe_load(RULE_TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert alert["annotations"].keys() == {"summary", "description"}
        assert alert["alert"] in tested


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "job"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert len({panel["title"] for panel in panels()}) == len(panels())
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
