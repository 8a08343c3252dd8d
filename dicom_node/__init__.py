"""The shell: network, disk, queue, process life and command line."""

__version__ = "0.1.0"
