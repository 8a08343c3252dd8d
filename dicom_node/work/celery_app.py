"""The Celery application: every setting that differs from Celery's default, with its reason; and whether its broker answers."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from dicom_node.runtime import connection_errors
from dicom_node.runtime.config_sections import Queue, Work

QUEUE = "films"


def celery_app(queue: Queue, work: Work) -> Celery:
    """The Celery application of `queue` (broker) and `work` (processes, time limit in seconds)."""
    memory = queue.broker.startswith("memory://")
    app = Celery("segmenter", broker="memory://localhost//" if memory else queue.broker)
    app.conf.update(
        broker_use_ssl=_tls(queue, work),
        broker_transport="dicom_node.work.memory_transport:Transport" if memory else None,  # why: see there
        task_default_queue=QUEUE,
        worker_pool="prefork",  # only prefork enforces time limits and survives a segfault
        worker_concurrency=work.processes,
        worker_prefetch_multiplier=1,
        worker_proc_alive_timeout=300,  # the child loads the model before it is ready
        worker_lost_wait=0.5,  # Celery waits 10 s for the result of a child that was killed; ours is in the ledger
        worker_hijack_root_logger=False,
        worker_log_color=False,
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # true makes a poison film run without end
        task_acks_on_failure_or_timeout=True,
        task_ignore_result=True,
        task_time_limit=work.time_limit_seconds,
        worker_enable_remote_control=not memory,  # without it Celery never reconnects to a Redis that went away
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the claim protects the film, not the message
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"polling_interval": queue.poll_seconds}
        if memory
        else {
            "visibility_timeout": 3600,  # no ETA and no countdown anywhere: waiting lives in the ledger
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    )
    return app


def _tls(queue: Queue, work: Work) -> dict[str, object] | None:
    """Which certificates to trust; without it Celery would believe whoever answers a rediss:// URL."""
    url = urlsplit(queue.broker)
    if url.scheme != "rediss" or "ssl_" in url.query:
        return None  # plain, or as the URL says; the Redis client verifies by default
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": queue.broker_ca or work.node_ca or None}


def problem_of(queue: Queue, work: Work, seconds: float = 3.0) -> str | None:
    """Connect to Redis; None when it answers, else a clause that says why not."""
    waits = {"socket_connect_timeout": seconds, "socket_timeout": seconds}
    try:
        with Connection(queue.broker, ssl=_tls(queue, work) or False, transport_options=waits) as connection:
            connection.ensure_connection(max_retries=1, timeout=seconds)
    except (OperationalError, RedisError, OSError) as error:
        return why_unreachable(error, queue.broker)
    return None


def why_unreachable(error: BaseException, broker: str) -> str:
    """The clause for `error`, met on the way to the URL `broker`: never with its password."""
    return connection_errors.why(error, host=urlsplit(broker).hostname or "", ca_key="queue.broker_ca")
