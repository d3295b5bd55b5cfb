"""``/metrics``: what Prometheus makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from support import statuses

from inosync.console.history import Snapshot
from inosync.console.metrics import STATES, expose

CONF = Path(__file__).resolve().parents[3] / "conf"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
HOSTILE = 'a"b\\c\nd\x1b[31m<script>é\udcff{}'


def snapshot(*nodes: dict[str, object], **more: object) -> Snapshot:
    status = statuses.status(list(nodes), **more)
    return Snapshot(statuses.NOW, status["master"], status["nodes"])


def read(seen: Snapshot) -> dict[str, Metric]:
    body, kind = expose(seen, OPENMETRICS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    return {family.name: family for family in openmetrics(body.decode())}  # type: ignore[no-untyped-call]


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    [found] = [
        one.value
        for family in families.values()
        for one in family.samples
        if one.name == sample and labels.items() <= one.labels.items()
    ]
    return float(found)


def test_metrics_describe_nodes_and_daemon() -> None:
    seen = read(snapshot(statuses.node("a", "retrying", 42.5), statuses.node("b")))
    assert value(seen, "inosync_up") == 1
    assert value(seen, "inosync_node_lag_seconds", node="a") == 42.5
    assert value(seen, "inosync_node_lag_seconds", node="b") == 0
    assert value(seen, "inosync_node_batches_total", node="a") == 1204
    assert value(seen, "inosync_node_failures_total", node="a", code="12") == 3
    assert value(seen, "inosync_node_failures_total", node="a", code="255") == 1
    assert value(seen, "inosync_node_worker_resident_memory_bytes", node="b") == 23_500_000
    assert value(seen, "inosync_events_total") == 8_100_233
    assert value(seen, "inosync_nodes", state="retrying") == value(seen, "inosync_nodes", state="ok") == 1
    assert value(seen, "inosync_build_info", version="0.3.0") == 1


def test_exactly_one_state_of_a_node_is_1() -> None:
    seen = read(snapshot(*(statuses.node(state, state) for state in STATES)))
    for state in STATES:
        ones = {
            one.labels["state"]: one.value
            for one in seen["inosync_node_state"].samples
            if one.labels["node"] == state
        }
        assert ones == {word: float(word == state) for word in STATES}


def test_histogram_is_cumulative_and_complete() -> None:
    family = read(snapshot(statuses.node("a")))["inosync_node_latency_seconds"]
    buckets = [(one.labels["le"], one.value) for one in family.samples if one.name.endswith("_bucket")]
    assert [bound for bound, _ in buckets] == [
        "0.005",
        "0.01",
        "0.05",
        "0.1",
        "0.5",
        "1.0",
        "5.0",
        "30.0",
        "+Inf",
    ]
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert value({"x": family}, "inosync_node_latency_seconds_count") == buckets[-1][1] == 1160
    assert value({"x": family}, "inosync_node_latency_seconds_sum") == 9.5


def test_hostile_names_are_escaped_and_unknown_values_left_out() -> None:
    bare = {"name": HOSTILE, "state": "starting", "lag": 0.0, "pending": 0, "rss": None, "last_ok": None}
    seen = read(snapshot(bare, {**bare, "state": "halted"}))
    [sample] = seen["inosync_node_lag_seconds"].samples
    assert sample.labels["node"] == 'a"b\\c\\nd\\x1b[31m<script>é\\udcff{}'
    assert not seen["inosync_node_last_success_timestamp_seconds"].samples


def test_daemon_that_does_not_answer_is_not_up() -> None:
    seen = read(Snapshot(statuses.NOW, why="not running"))
    assert list(seen) == ["inosync_up"]
    assert value(seen, "inosync_up") == 0


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=0.0.4", "text/html", ",;=,", "x" * 5000])
def test_other_accepted_types_get_plain_text(accept: str) -> None:
    body, kind = expose(snapshot(statuses.node("a")), accept)
    assert kind.startswith("text/plain")
    assert {family.name for family in prometheus(body.decode())} >= {"inosync_up", "inosync_node_lag_seconds"}


def promtool(*words: str, text: bytes | None = None) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (apt install prometheus)")
    done = subprocess.run(["promtool", *words], input=text, capture_output=True, check=False, timeout=60)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_promtool_finds_no_problem() -> None:
    body, _ = expose(snapshot(*statuses.fleet(20)), "")
    assert promtool("check", "metrics", text=body).strip() == ""


# What is in conf/ ----------------------------------------------------------------------------------------


def served() -> set[str]:
    """All names of samples that there can be."""
    nodes = statuses.node("a", "full"), statuses.node("b", "retrying")
    everything = snapshot(*nodes, reloaded_at=statuses.NOW, fleet=statuses.FLEET)
    return {sample.name for family in read(everything).values() for sample in family.samples}


def named(expression: str) -> set[str]:
    return set(re.findall(r"\binosync_\w+", expression))


def test_dashboard_uses_existing_metrics() -> None:
    board = json.loads((CONF / "inosync-dashboard.json").read_text())
    assert board["uid"] == "inosync"
    assert board["schemaVersion"] >= 36
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) > 8
    places = []
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        places += [
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert panel["title"]
        for target in panel["targets"]:
            assert panel["datasource"]["uid"] == "${datasource}"
            assert named(target["expr"]) <= served(), panel["title"]
            assert named(target["expr"])
    assert len(set(places)) == len(places), "panels lie on each other"
    queries = [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    for query in queries:
        assert named(query["query"]) <= served()


def test_dashboard_queries_are_promql(tmp_path: Path) -> None:
    board = json.loads((CONF / "inosync-dashboard.json").read_text())
    exprs = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"query:number{n}", "expr": expr.replace("$node", "x")} for n, expr in enumerate(exprs)
    ]
    rules = [{**rule, "expr": rule["expr"].replace("$__rate_interval", "5m")} for rule in rules]
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_alerts_use_existing_metrics() -> None:
    text = (CONF / "inosync.rules.yml").read_text()
    exprs = re.findall(r"^ +expr: (.+)$", text, re.MULTILINE)
    assert len(exprs) == len(re.findall("- alert: ", text)) >= 8
    for expr in exprs:
        assert named(expr) <= served()


def test_alerts_are_valid() -> None:
    promtool("check", "rules", str(CONF / "inosync.rules.yml"))


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", str(Path(__file__).with_name("alerts.yml")))


def test_metrics_describe_the_senders_of_a_fleet() -> None:
    seen = read(snapshot(statuses.node("a"), fleet=statuses.FLEET))
    assert value(seen, "inosync_redis_up") == 1
    assert value(seen, "inosync_unserved_nodes") == 1
    expected = {
        "ready": 1,
        "nodes": 2,
        "arrived_position": 41,
        "lag_seconds": 3.5,
        "heartbeat_age_seconds": 0.4,
    }
    for name, figure in expected.items():
        assert value(seen, f"inosync_sender_{name}", sender="eu") == figure
    gone = {
        sample.name for family in seen.values() for sample in family.samples if "us" in sample.labels.values()
    }
    assert gone == {"inosync_sender_ready", "inosync_sender_nodes"}, "nothing is known of it"
    seen = read(snapshot(fleet={**statuses.FLEET, "redis": "refused", "unserved": None}))
    assert value(seen, "inosync_redis_up") == 0
    assert "inosync_unserved_nodes" not in seen
    alone = read(snapshot(statuses.node("a")))
    assert not [name for name in alone if "sender" in name or "redis" in name or "unserved" in name]
