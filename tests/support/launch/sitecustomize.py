"""Python imports this at the start of every process that has this folder on its PYTHONPATH: see ../crash_launcher.py."""

import os
import sys

if "CRASH_TRAPS" in os.environ:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    import crash_launcher

    crash_launcher.install()
    sys.path.pop(0)
