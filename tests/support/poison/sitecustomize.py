"""On PYTHONPATH of a node: films named in POISON (JSON, SOP Instance UID -> kind) break the worker that decodes them.

For speed alone the model's libraries are imported before the worker forks: each of its many dead processes is replaced by one
that has them.
"""

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


class Patcher(importlib.abc.MetaPathFinder):
    """Has `patch` change the module `name` when it is imported."""

    name = ""

    def find_spec(self, name, path, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.patch(module)

        spec.loader.exec_module = exec_module
        return spec


class Poisoner(Patcher):
    """Films do harm where they are decoded."""

    name = "segmenter.film.decode"

    def patch(self, module):
        decode = module.decode

        def poisoned(dataset, *arguments, **named):
            kind = POISON.get(str(dataset.SOPInstanceUID))
            if kind:
                KINDS[kind]()
            return decode(dataset, *arguments, **named)

        module.decode = poisoned


class DeviceLoser(Patcher):
    """The device of the first process that makes `AFTER` forward passes is lost then, for as long as that process lives."""

    name = "segmenter.model.predict"
    AFTER = 2

    def patch(self, module):
        call, lost, passes = module.Predictor.__call__, [], []

        def losing(predictor, images):
            passes.append(1)
            if not lost and len(passes) > self.AFTER:
                try:
                    os.close(os.open(LOSES, os.O_CREAT | os.O_EXCL))
                    lost.append(1)
                except FileExistsError:
                    lost.append(0)  # it was another process
            if lost and lost[0]:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return call(predictor, images)

        module.Predictor.__call__ = losing


class Preparer(Patcher):
    """The worker's parent has what its processes need."""

    name = "dicom_node.work.celery_worker"  # imported by the parent alone

    def patch(self, module):
        import onnxruntime  # noqa: F401

        import segmenter.engine  # noqa: F401


sys.meta_path.insert(0, Preparer())
if POISON:
    sys.meta_path.insert(0, Poisoner())
if LOSES := os.environ.get("POISON_DEVICE"):
    sys.meta_path.insert(0, DeviceLoser())
