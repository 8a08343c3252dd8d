"""On PYTHONPATH of a node: films named in POISON (JSON, SOP Instance UID -> kind) break the worker that decodes them."""

import ctypes
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time


def _memory():
    raise MemoryError


KINDS = {
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),  # what the kernel does to a process without memory
    "hang": lambda: time.sleep(3600),
    "memory": _memory,
}
POISON = json.loads(os.environ.get("POISON", "{}"))


class Poisoner(importlib.abc.MetaPathFinder):
    """Wraps `segmenter.decode.decode` when it is imported."""

    def find_spec(self, name, path, target=None):
        if name != "segmenter.decode":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            decode = module.decode

            def poisoned(dataset, *arguments, **named):
                kind = POISON.get(str(dataset.SOPInstanceUID))
                if kind:
                    KINDS[kind]()
                return decode(dataset, *arguments, **named)

            module.decode = poisoned

        spec.loader.exec_module = exec_module
        return spec


if POISON:
    sys.meta_path.insert(0, Poisoner())
