"""``/metrics``: what the daemon tells, as Prometheus and OpenMetrics want it.

The only importer of prometheus_client.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
from inosync.messages import NodeState
from inosync.text import one_line

STATES = tuple(verdict.value for verdict in NodeState)

_OF_MASTER = (
    ("start_time_seconds", "started_at", "When the daemon was started, in seconds since the epoch."),
    ("resident_memory_bytes", "rss", "Memory of the master, shared pages included."),
    ("watched_directories", "directories", "Directories that are watched."),
    (
        "unwatched_directories",
        "unwatched",
        "Directories that could not be watched, and are looked at instead.",
    ),
    ("journal_changes", "journal", "Changes that the journal keeps."),
    ("last_reload_timestamp_seconds", "reloaded_at", "When a reload last took effect."),
)
_COUNTED_BY_MASTER = (
    ("events", "events", "Events read from the kernel."),
    ("overflows", "overflows", "Times that the kernel's queue of events has overflowed."),
)
_OF_NODE = (
    ("lag_seconds", "lag", "Age of the oldest change that the node has not confirmed; 0 if it has all."),
    ("pending_changes", "pending", "Changes that the node has not confirmed."),
    ("attempts", "attempts", "Tries that have failed since the last one that came through."),
    ("last_success_timestamp_seconds", "last_ok", "When the node last confirmed something."),
    ("next_try_timestamp_seconds", "retry_at", "When a failed transfer is tried again."),
    ("paused", "paused", "Whether the node was paused by an operator."),
    ("worker_resident_memory_bytes", "rss", "Memory of the node's worker, shared pages included."),
    ("verified_timestamp_seconds", "verified_at", "When the node was last compared in full."),
    ("verified_differences", "differences", "What differed when the node was last compared in full."),
)
_COUNTED_OF_NODE = (
    ("batches", "batches", "Batches that the node has confirmed."),
    ("full_mirrors", "fulls", "Full mirrors that the node has confirmed."),
    ("paths", "paths", "Paths in the batches that the node has confirmed."),
    ("bytes", "bytes", "Bytes sent to the node and received from it, as rsync counts them."),
    ("rsync_starts", "rsyncs", "rsyncs started for the node."),
    ("worker_deaths", "deaths", "Workers of the node that have died."),
    ("hooks", "hooks", "Hooks that have ended."),
    ("hook_failures", "hook_failures", "Hooks that have failed or took too long."),
)


def expose(told: Snapshot, accept: str) -> tuple[bytes, str]:
    """The body, and its content type, for a client that accepts these."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(told))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collected(Collector):
    def __init__(self, told: Snapshot) -> None:
        self._told = told

    def collect(self) -> Iterable[Metric]:
        yield from families(self._told)


def families(told: Snapshot) -> Iterator[Metric]:
    """Every metric. Where the daemon does not answer there is ``inosync_up``, and nothing else."""
    yield GaugeMetricFamily("inosync_up", "Whether the daemon answers.", value=float(told.up))
    if told.up:
        yield from _of_master(told.master)
        yield from _of_nodes(_labelled(told.nodes))


def _of_master(master: Mapping[str, Any]) -> Iterator[Metric]:
    build = InfoMetricFamily("inosync_build", "What is running.")
    build.add_metric([], {"version": one_line(str(master.get("version", "")))})
    yield build
    for name, key, text in _OF_MASTER:
        if (value := master.get(key)) is not None:
            yield GaugeMetricFamily(f"inosync_{name}", text, value=float(value))
    for name, key, text in _COUNTED_BY_MASTER:
        if (value := master.get(key)) is not None:
            yield CounterMetricFamily(f"inosync_{name}", text, value=float(value))
    halted = len(master.get("halted", ()))
    yield GaugeMetricFamily("inosync_halted_directories", "Trees that the guard has halted.", value=halted)
    text = "Whether the last reload of the configuration was refused."
    yield GaugeMetricFamily("inosync_reload_refused", text, value=float(bool(master.get("refused"))))
    nodes = GaugeMetricFamily("inosync_nodes", "Nodes, by state.", labels=["state"])
    for state in STATES:
        nodes.add_metric([state], float(master.get("states", {}).get(state, 0)))
    yield nodes


def _labelled(nodes: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The nodes by what stands in their label; that of the worse one where two were to be the same."""
    found: dict[str, Mapping[str, Any]] = {}
    for node in nodes:
        found.setdefault(one_line(str(node["name"])), node)
    return found


def _of_nodes(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    for name, key, text in _OF_NODE:
        gauge = GaugeMetricFamily(f"inosync_node_{name}", text, labels=["node"])
        _fill(gauge, nodes, key)
        yield gauge
    for name, key, text in _COUNTED_OF_NODE:
        counter = CounterMetricFamily(f"inosync_node_{name}", text, labels=["node"])
        _fill(counter, nodes, key)
        yield counter
    yield _states(nodes)
    yield _progress(nodes)
    yield _failures(nodes)
    yield _latency(nodes)


def _fill(
    family: GaugeMetricFamily | CounterMetricFamily, nodes: Mapping[str, Mapping[str, Any]], key: str
) -> None:
    for label, node in nodes.items():
        if (value := node.get(key)) is not None:
            family.add_metric([label], float(value))


def _states(nodes: Mapping[str, Mapping[str, Any]]) -> Metric:
    text = "1 for the state that the node is in, 0 for the others."
    family = GaugeMetricFamily("inosync_node_state", text, labels=["node", "state"])
    for label, node in nodes.items():
        for state in STATES:
            family.add_metric([label, state], float(node["state"] == state))
    return family


def _progress(nodes: Mapping[str, Mapping[str, Any]]) -> Metric:
    text = "How far a full mirror that is running has come, from 0 to 1."
    family = GaugeMetricFamily("inosync_node_full_mirror_ratio", text, labels=["node"])
    for label, node in nodes.items():
        if (percent := node.get("percent")) is not None:
            family.add_metric([label], percent / 100)
    return family


def _failures(nodes: Mapping[str, Mapping[str, Any]]) -> Metric:
    text = "Transfers that failed, by the exit code of rsync; a signal is negative, 0 is not even started."
    family = CounterMetricFamily("inosync_node_failures", text, labels=["node", "code"])
    for label, node in nodes.items():
        for code, count in node.get("failures", {}).items():
            family.add_metric([label, str(code)], float(count))
    return family


def _latency(nodes: Mapping[str, Mapping[str, Any]]) -> Metric:
    text = "From the reading of a batch's oldest event to the confirmation of the batch."
    family = HistogramMetricFamily("inosync_node_latency_seconds", text, labels=["node"])
    for label, node in nodes.items():
        latency = node.get("latency")
        if latency:
            buckets = [
                ("+Inf" if bound is None else repr(float(bound)), float(count))
                for bound, count in latency["buckets"]
            ]
            family.add_metric([label], buckets, sum_value=float(latency["sum"]))
    return family
