"""Logging as text for people or JSON for collectors. No patient data: only UIDs, job ids, codes and AE titles are logged.

One event is one line: line ends and control characters in what a peer sent are escaped.
"""

from __future__ import annotations

import logging
import sys
import warnings

import structlog

from dicom_node.runtime.config_sections import Log
from dicom_node.runtime.printable import printable

# Libraries that print one line per message below WARNING.
_VERBOSE = ("pynetdicom", "celery", "kombu", "amqp", "PIL", "asyncio", "uvicorn", "httpx2", "httpcore2")
# Libraries whose warnings quote the values of a dataset.
_QUOTING = ("pydicom", "highdicom")


def start(settings: Log, verb: str) -> None:
    """Write every log line of this process to standard error, with time, level and `verb` (the subcommand)."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=False),
    ]
    renderer = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, pad_level=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _exception_type_only,
                _on_one_line,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level)
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _QUOTING:
        library = logging.getLogger(name)
        library.propagate = False  # not by its level: pydicom resets that when it is imported
        library.addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")  # they quote values too
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(verb=verb)


def _exception_type_only(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A traceback's last line can quote a header value: keep the type and the place, drop the message."""
    problem = event.pop("exc_info", None)
    if problem is True:
        problem = sys.exc_info()
    if isinstance(problem, BaseException):
        problem = (type(problem), problem, problem.__traceback__)
    if isinstance(problem, tuple) and problem[0] is not None:
        trace = problem[2]
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}" if trace else "?"
        event["exception"] = f"{problem[0].__name__} at {place}"
    return event


def _on_one_line(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {printable(str(key)): _shown(value) for key, value in event.items()}


def _shown(value: object) -> object:
    """Strings at any depth, printable; what is neither text nor number, as its text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {printable(str(key)): _shown(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(one) for one in value]
    return printable(str(value))
