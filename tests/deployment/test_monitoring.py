"""Rules, dashboard and runbook belong together, and Prometheus reads them."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from string import ascii_uppercase

import pytest
import yaml
from prometheus_client import REGISTRY

from mercuria.observability import metrics as _metrics  # noqa: F401  defines them
from tests.deployment.monitoring import (
    DASHBOARD,
    FOREIGN,
    PROMETHEUS,
    ROOT,
    panels,
    program,
    questions,
    questions_of_alerts,
    questions_of_panels,
    rules,
)

TESTS = PROMETHEUS / "alerts_test.yml"
SERIES_OF = {
    "counter": ("_total",),
    "gauge": ("",),
    "info": ("_info",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def run_promtool(*arguments: str | Path) -> str:
    """Run promtool, which has to be content, and return what it says."""
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def known_metrics() -> set[str]:
    """Return the names of the series that a worker may have."""
    return {
        f"{family.name}{suffix}" for family in REGISTRY.collect() for suffix in SERIES_OF.get(family.type, ())
    }


def test_promtool_accepts_the_configuration() -> None:
    run_promtool("check", "config", "prometheus.yml")
    run_promtool("check", "rules", "--lint-fatal", "alerts.yml")


def test_alerts_fire_when_they_should_and_are_silent_when_they_should() -> None:
    run_promtool("test", "rules", TESTS)


def test_every_alert_is_tested_both_ways() -> None:
    outcomes: dict[str, set[bool]] = {}
    for group in yaml.safe_load(TESTS.read_text("utf-8"))["tests"]:
        for each in group["promql_expr_test"]:
            assert f'alertname="{group["name"]}"' in each["expr"]
            outcomes.setdefault(group["name"], set()).add(bool(each["exp_samples"]))
    assert outcomes == {rule["alert"]: {True, False} for rule in rules()}


def test_every_alert_says_what_is_so_how_bad_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "action", "runbook"}, rule["alert"]


def test_every_alert_has_its_row_in_the_runbook_and_every_row_its_alert() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    listed = re.findall(r'^\| <a id="(\w+)"></a>`(\w+)` \| (\w+) \| \S.* \|$', page, re.MULTILINE)
    assert [(name, severity) for _, name, severity in listed] == [
        (rule["alert"], rule["labels"]["severity"]) for rule in rules()
    ]
    assert [f"docs/operations.md#{anchor}" for anchor, _, _ in listed] == [
        rule["annotations"]["runbook"] for rule in rules()
    ]


def test_nothing_asks_for_a_metric_that_there_is_not() -> None:
    known = known_metrics() | {"up"}
    missing = [
        (question.asked_by, name)
        for question in questions()
        for name in question.metrics
        if name not in known and name.partition("_")[0] not in FOREIGN
    ]
    assert missing == []
    assert all(question.metrics for question in questions_of_alerts())


def test_the_memory_of_a_worker_is_that_of_the_compose_file() -> None:
    worker = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["x-worker"]
    assert worker["deploy"]["resources"]["limits"]["memory"] == "2g"
    (rule,) = [rule for rule in rules() if rule["alert"] == "MercuriaMemoryHigh"]
    assert "0.8 * 2 * 1024 ^ 3" in rule["expr"]


def test_promtool_reads_every_query_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [
        {"record": f"query_{number}", "expr": question.expression}
        for number, question in enumerate(questions_of_panels())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in run_promtool("check", "rules", file)


def test_every_panel_says_what_it_shows() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert [target["refId"] for target in panel["targets"]] == list(
            ascii_uppercase[: len(panel["targets"])]
        )
        assert all(target["legendFormat"] for target in panel["targets"])
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_panels_have_places_of_their_own() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


@pytest.mark.parametrize(
    "file", sorted((ROOT / "deploy" / "grafana").rglob("*.yml")), ids=lambda file: file.stem
)
def test_grafana_finds_what_the_compose_file_gives_it(file: Path) -> None:
    content = yaml.safe_load(file.read_text("utf-8"))
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    for provider in content.get("providers", ()):
        assert provider["options"]["path"] in mounted
    for source in content.get("datasources", ()):
        assert source["url"] == "http://prometheus:9090"
        scrapes = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))["global"]
        assert source["jsonData"]["timeInterval"] == scrapes["scrape_interval"]


def test_prometheus_asks_each_worker_of_the_compose_file_by_itself() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    assert targets["mercuria"] == [f"{name}:6066" for name in services if name.startswith("worker-")]
    assert targets["node"] == ["node-exporter:9100"]
