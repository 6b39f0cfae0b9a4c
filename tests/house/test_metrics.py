"""The manual, the dashboard and the page of metrics speak of the same metrics."""

import json
import re
from pathlib import Path

from lowtide.api.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
SERIES = {name for metric in METRICS for name in metric.series}


def test_every_metric_is_documented_once() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(lowtide_\w+)` ", page, flags=re.MULTILINE) == [metric.name for metric in METRICS]


def test_the_dashboard_shows_every_metric_and_none_that_does_not_exist() -> None:
    board = json.loads((ROOT / "deploy/grafana/lowtide.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    shown = set(re.findall(r"\blowtide_\w+", " ".join(queries)))
    assert shown <= SERIES
    assert all(shown & set(metric.series) for metric in METRICS)


def test_the_dashboard_asks_for_labels_that_its_metrics_have() -> None:
    board = json.loads((ROOT / "deploy/grafana/lowtide.json").read_text(encoding="utf-8"))
    labels = {name: {*metric.labels, "le", "job"} for metric in METRICS for name in metric.series}
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            names = re.findall(r"\blowtide_\w+", target["expr"])
            asked = {label for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in by.split(", ")}
            asked |= set(re.findall(r"[{,](\w+)=", target["expr"]))
            assert asked <= set().union(*(labels[name] for name in names)), target["expr"]


def test_panels_stand_side_by_side_and_have_an_id_each() -> None:
    panels = json.loads((ROOT / "deploy/grafana/lowtide.json").read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
