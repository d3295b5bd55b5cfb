"""``/metrics``: the status of the daemon in the formats of Prometheus and OpenMetrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from inosync.console.history import Snapshot
from inosync.text import NodeState, one_line

STATES = tuple(state.value for state in NodeState)

_MASTER_GAUGES = (
    ("start_time_seconds", "started_at", "When the daemon was started, in seconds since the epoch."),
    ("resident_memory_bytes", "rss", "Memory of the master, shared pages included."),
    ("watched_directories", "directories", "Directories that are watched."),
    ("unwatched_directories", "unwatched", "Directories that could not be watched, and are polled instead."),
    ("journal_changes", "journal", "Changes that the journal holds."),
    (
        "held_until_timestamp_seconds",
        "held_until",
        "When the operator's hold of all nodes ends at the latest.",
    ),
    ("last_reload_timestamp_seconds", "reloaded_at", "When a reload last took effect."),
)
_MASTER_COUNTERS = (
    ("events", "events", "Events read from the kernel."),
    ("overflows", "overflows", "Overflows of the kernel's queue of events."),
)
_NODE_GAUGES = (
    ("lag_seconds", "lag", "Age of the oldest change that the node has not confirmed; 0 if it has all."),
    ("pending_changes", "pending", "Changes that the node has not confirmed."),
    ("attempts", "attempts", "Tries that have failed since the last success."),
    ("last_success_timestamp_seconds", "last_ok", "When the node last confirmed something."),
    ("next_try_timestamp_seconds", "retry_at", "When a failed transfer is tried again."),
    ("paused", "paused", "Whether the node was paused by an operator."),
    ("worker_resident_memory_bytes", "rss", "Memory of the node's worker, shared pages included."),
    ("verified_timestamp_seconds", "verified_at", "When the last verification of the node ended."),
    ("verified_differences", "differences", "Differences that the last verification found."),
)
_NODE_COUNTERS = (
    ("batches", "batches", "Batches that the node has confirmed."),
    ("full_mirrors", "fulls", "Full mirrors that the node has confirmed."),
    ("paths", "paths", "Paths in the batches that the node has confirmed."),
    ("bytes", "bytes", "Bytes sent to the node and received from it, as rsync counts them."),
    (
        "renamed_bytes",
        "renamed_bytes",
        "Bytes that were not sent because the node had them under another name.",
    ),
    ("rsync_starts", "rsyncs", "rsyncs started for the node."),
    ("worker_deaths", "deaths", "Workers of the node that have died."),
    ("hooks", "hooks", "Hooks that were run."),
    ("hook_failures", "hook_failures", "Hooks that have failed or took too long."),
)

_SENDER_GAUGES: tuple[tuple[str, str, Callable[[Mapping[str, Any]], float | None]], ...] = (
    ("ready", "Whether the sender takes nodes.", lambda one: one["ready"]),
    ("nodes", "Nodes whose lease the sender holds.", lambda one: len(one["nodes"])),
    (
        "arrived_position",
        "Position of the journal up to which the copy of the sender is complete.",
        lambda one: one["arrived"],
    ),
    (
        "lag_seconds",
        "Age of the oldest change that its copy lacks; 0 if it has all.",
        lambda one: None if one["arrived"] is None else one["lag"],
    ),
    ("heartbeat_age_seconds", "For how long the sender was not heard of.", lambda one: one["heard"]),
)


def expose(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Return the body and its content type, for a client that accepts these types."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(snapshot))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collected(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        yield from families(self._snapshot)


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield every metric; only ``inosync_up`` if the daemon does not answer."""
    yield GaugeMetricFamily("inosync_up", "Whether the daemon answers.", value=float(snapshot.up))
    if snapshot.up:
        yield from _of_master(snapshot.master)
        by_label: dict[str, Mapping[str, Any]] = {}
        for node in snapshot.nodes:  # of two nodes with one label the worse one, which is first
            by_label.setdefault(one_line(str(node["name"])), node)
        yield from _of_nodes(by_label)


def _of_master(master: Mapping[str, Any]) -> Iterator[Metric]:
    build = InfoMetricFamily("inosync_build", "What is running.")
    build.add_metric([], {"version": one_line(str(master.get("version", "")))})
    yield build
    for kind, metrics in ((GaugeMetricFamily, _MASTER_GAUGES), (CounterMetricFamily, _MASTER_COUNTERS)):
        for name, key, text in metrics:
            if (value := master.get(key)) is not None:
                yield kind(f"inosync_{name}", text, value=float(value))
    halted = len(master.get("halted", ()))
    yield GaugeMetricFamily("inosync_halted_directories", "Trees that the guard has halted.", value=halted)
    text = "Whether the last reload of the configuration was refused."
    yield GaugeMetricFamily("inosync_reload_refused", text, value=float(bool(master.get("refused"))))
    if (fleet := master.get("fleet")) is not None:
        yield from _of_fleet(fleet)
    nodes = GaugeMetricFamily("inosync_nodes", "Nodes, by state.", labels=["state"])
    for state in STATES:
        nodes.add_metric([state], float(master.get("states", {}).get(state, 0)))
    yield nodes


def _of_fleet(fleet: Mapping[str, Any]) -> Iterator[Metric]:
    text = "Whether the Redis of the fleet can be used."
    yield GaugeMetricFamily("inosync_redis_up", text, value=float(not fleet["redis"]))
    if (unserved := fleet["unserved"]) is not None:
        text = "Nodes whose lease no sender holds."
        yield GaugeMetricFamily("inosync_unserved_nodes", text, value=float(unserved))
    for name, text, value in _SENDER_GAUGES:
        family = GaugeMetricFamily(f"inosync_sender_{name}", text, labels=["sender"])
        for sender in fleet["senders"]:
            if (found := value(sender)) is not None:
                family.add_metric([one_line(str(sender["name"]))], float(found))
        yield family


def _of_nodes(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    for kind, metrics in ((GaugeMetricFamily, _NODE_GAUGES), (CounterMetricFamily, _NODE_COUNTERS)):
        for name, key, text in metrics:
            family = kind(f"inosync_node_{name}", text, labels=["node"])
            for label, node in nodes.items():
                if (value := node.get(key)) is not None:
                    family.add_metric([label], float(value))
            yield family
    text = "1 for the state that the node is in, 0 for the others."
    states = GaugeMetricFamily("inosync_node_state", text, labels=["node", "state"])
    text = "Progress of a running full mirror, from 0 to 1."
    progress = GaugeMetricFamily("inosync_node_full_mirror_ratio", text, labels=["node"])
    text = "Transfers that failed, by rsync's exit code: negative for a signal, 0 if it was not even started."
    failures = CounterMetricFamily("inosync_node_failures", text, labels=["node", "code"])
    text = "From the reading of a batch's oldest event to the confirmation of the batch."
    latencies = HistogramMetricFamily("inosync_node_latency_seconds", text, labels=["node"])
    for label, node in nodes.items():
        for state in STATES:
            states.add_metric([label, state], float(node["state"] == state))
        if (percent := node.get("percent")) is not None:
            progress.add_metric([label], percent / 100)
        for code, count in node.get("failures", {}).items():
            failures.add_metric([label, str(code)], float(count))
        if latency := node.get("latency"):
            buckets = [
                ("+Inf" if bound is None else repr(float(bound)), float(count))
                for bound, count in latency["buckets"]
            ]
            latencies.add_metric([label], buckets, sum_value=float(latency["sum"]))
    yield from (states, progress, failures, latencies)
