"""What operators look at: the rules of Prometheus and the dashboard of Grafana, and the programs that read them."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
COMPOSE = ROOT / "docker-compose.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "mercuria.json"

FETCHED = ROOT / "build" / "prometheus" / "usr" / "bin"
"""Where `make prometheus` puts what is not installed."""

VARIABLES = {"$__rate_interval": "1m", "$instance": ".*"}
"""The dashboard's, as Grafana would fill them in."""

FOREIGN = ("process", "python", "node")
"""First words of metrics that others define: the Prometheus client, and the node exporter."""

_SELECTOR = re.compile(r"\b(up|ALERTS|(?:mercuria|process|python|node)_\w+)\b(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_BY = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


class Question(NamedTuple):
    """What is asked of Prometheus, and by whom."""

    asked_by: str
    expression: str

    @property
    def selectors(self) -> list[tuple[str, set[str]]]:
        """The metrics that it reads, each with the labels by which it chooses."""
        found = _SELECTOR.findall(self.expression)
        return [(name, set(_LABEL.findall(matchers))) for name, matchers in found]

    @property
    def metrics(self) -> set[str]:
        """The names of the metrics that it reads."""
        return {name for name, _ in self.selectors} - {"ALERTS"}

    @property
    def groupings(self) -> set[str]:
        """The labels by which it groups."""
        return {label.strip() for labels in _BY.findall(self.expression) for label in labels.split(",")} - {
            ""
        }


def program(name: str) -> Path:
    """Return where a program of Prometheus is.

    Raises:
        FileNotFoundError: it is not there; the message says how to get it.
    """
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), str(FETCHED)]))
    if found is None:
        raise FileNotFoundError(
            f"There is no {name}. On Debian and Ubuntu, `make prometheus` gets it (after `apt-get update`);"
            " elsewhere, install Prometheus and its node exporter."
        )
    return Path(found)


def rules() -> list[dict[str, Any]]:
    """Return the alerts."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels, without the rows that they are in."""
    board = json.loads(DASHBOARD.read_text("utf-8"))
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def questions_of_alerts() -> list[Question]:
    """Return what the alerts ask."""
    return [Question(rule["alert"], rule["expr"]) for rule in rules()]


def questions_of_panels() -> list[Question]:
    """Return what the dashboard asks, with its variables filled in."""
    return [
        Question(f"{panel['title']} ({target['legendFormat']})", filled_in(target["expr"]))
        for panel in panels()
        for target in panel["targets"]
    ]


def filled_in(expression: str) -> str:
    """Return an expression without variables."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def questions() -> Iterator[Question]:
    """Yield all that is asked."""
    yield from questions_of_alerts()
    yield from questions_of_panels()
