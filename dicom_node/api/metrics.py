"""/metrics: the statistics of the ledger as Prometheus metrics. Nothing is counted in memory, so a restart loses nothing.

A number that can decrease (a rerun moves a job back) is a gauge. Latencies are quantiles over a recent window and therefore
gauges too: a histogram would have to count every film ever received. Labels are codes, states and names from the
configuration; never a UID, an id or anything of a patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from dicom_node import __version__
from dicom_node.storage.statistics import Model, Statistics

MODES = ("running", "paused", "draining")
_WINDOW = "of the last hour, at most the 2000 newest"

Family = CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily
Rows = Callable[[Statistics], list[tuple[tuple[str, ...], float]]]

# name, kind, labels, help, rows of (label values, value). The table in docs/use/monitoring.md is compared with it.
METRICS: tuple[tuple[str, type[Any], tuple[str, ...], str, Rows], ...] = (
    ("segmenter_films_received", CounterMetricFamily, (), "Films received, each content once.", lambda f: [((), f.received)]),
    ("segmenter_films_resent", CounterMetricFamily, (), "Equal arrivals after the first.", lambda f: [((), f.resent)]),
    (
        "segmenter_conflicts", CounterMetricFamily, (),
        "Contents under a SOP Instance UID that another content had before.", lambda f: [((), f.conflicts)],
    ),
    ("segmenter_jobs", GaugeMetricFamily, ("state",), "Jobs by state.", lambda f: _by_name(f.states)),
    ("segmenter_jobs_answered", GaugeMetricFamily, ("finding",), "Answered jobs by finding.", lambda f: _by_name(f.findings)),
    ("segmenter_jobs_skipped", GaugeMetricFamily, ("code",), "Skipped jobs by reason.", lambda f: _by_name(f.skipped)),
    ("segmenter_jobs_failed", GaugeMetricFamily, ("code",), "Failed jobs by reason.", lambda f: _by_name(f.failed)),
    (
        "segmenter_jobs_indeterminate", GaugeMetricFamily, ("code",), "Answered jobs with an indeterminate finding, by reason.",
        lambda f: _by_name(f.indeterminate),
    ),
    (
        "segmenter_queue_waiting", GaugeMetricFamily, ("queue",), "Jobs that wait for a worker.",
        lambda f: [((one.name,), one.waiting) for one in f.queues],
    ),
    (
        "segmenter_queue_in_work", GaugeMetricFamily, ("queue",), "Jobs that a worker holds.",
        lambda f: [((one.name,), one.in_work) for one in f.queues],
    ),
    (
        "segmenter_queue_oldest_seconds", GaugeMetricFamily, ("queue",), "Age of the longest waiting film (not of reruns).",
        lambda f: [((one.name,), one.oldest_seconds or 0.0) for one in f.queues],
    ),
    (
        "segmenter_stage_seconds", GaugeMetricFamily, ("stage", "quantile"), f"Quantiles of films {_WINDOW}.",
        lambda f: [((one.name, f"{q:g}"), seconds) for one in f.stages for q, seconds in one.quantiles],
    ),
    (
        "segmenter_stage_films", GaugeMetricFamily, ("stage",), f"Films (delivery: objects) {_WINDOW}.",
        lambda f: [((one.name,), one.films) for one in f.stages],
    ),
    (
        "segmenter_deliveries", GaugeMetricFamily, ("destination", "state", "status"),
        "Deliveries by the DIMSE status of the last answer, hexadecimal.",
        lambda f: [((one.destination, one.state, one.status), one.count) for one in f.deliveries],
    ),
    (
        "segmenter_undelivered_oldest_seconds", GaugeMetricFamily, ("destination",), "Age of the oldest open delivery.",
        lambda f: _by_name(f.undelivered_seconds),
    ),
    (
        "segmenter_associations_last_hour", GaugeMetricFamily, ("outcome",), "Accepted associations opened in the last hour.",
        lambda f: _by_name(f.associations),
    ),
    (
        "segmenter_films_expiring", GaugeMetricFamily, (),
        "Films without a delivered answer that retention removes within retention.warn_days.", lambda f: [((), f.expiring)],
    ),
    ("segmenter_disk_free_bytes", GaugeMetricFamily, (), "Free disk space of the spool.", lambda f: [((), f.free_bytes)]),
    (
        "segmenter_disk_reserve_bytes", GaugeMetricFamily, (), "Below it, films are refused (A700).",
        lambda f: [((), f.reserve_bytes)],
    ),
    (
        "segmenter_disk_watermark_bytes", GaugeMetricFamily, (), "Below it, delivered films are removed early.",
        lambda f: [((), f.watermark_bytes)],
    ),
    (
        "segmenter_mode", GaugeMetricFamily, ("mode",), "1 for the current mode.",
        lambda f: [((mode,), float(f.mode == mode)) for mode in MODES],
    ),
    (
        "segmenter_answered_by", InfoMetricFamily, ("model", "digest"), "The model of the newest answer of the last hour.",
        lambda f: [(f.answered_by, 1.0)] if f.answered_by else [],
    ),
)  # fmt: skip

# Not from the ledger: the configuration of this process.
MODEL = ("segmenter_model", ("name", "version", "digest"), "The configured model; absent when it cannot be loaded.")
BUILD = ("segmenter_build", ("version",), "The program.")


class Collector:
    """Collected by a registry at every scrape."""

    def __init__(self, statistics: Callable[[], Statistics], model: Callable[[], Model | None]) -> None:
        self._statistics = statistics
        self._model = model

    def describe(self) -> list[Metric]:
        return []  # otherwise the registry would read the ledger

    def collect(self) -> Iterator[Metric]:
        statistics, model = self._statistics(), self._model()
        for name, kind, labels, text, rows in METRICS:
            family = kind(name, text, labels=labels)
            for values, value in rows(statistics):
                _add(family, labels, values, value)
            yield family
        yield _info(MODEL, (model.name, model.version, model.digest) if model else None)
        yield _info(BUILD, (__version__,))


def exposition(statistics: Callable[[], Statistics], model: Callable[[], Model | None]) -> bytes:
    """The text of /metrics (Prometheus text format 0.0.4). Raises what `statistics` raises."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(statistics, model))
    return generate_latest(registry)


def _info(what: tuple[str, tuple[str, ...], str], values: tuple[str, ...] | None) -> Metric:
    name, labels, text = what
    family = InfoMetricFamily(name, text, labels=labels)
    if values is not None:
        _add(family, labels, values, 1.0)
    return family


def _add(family: Family, labels: tuple[str, ...], values: tuple[str, ...], value: float) -> None:
    if isinstance(family, InfoMetricFamily):
        family.add_metric((), dict(zip(labels, values, strict=True)))
    else:
        family.add_metric(values, value)


def _by_name(values: dict[str, Any]) -> list[tuple[tuple[str, ...], float]]:
    return [((name,), value) for name, value in values.items()]
