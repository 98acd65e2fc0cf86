"""InfraSight: see, keep and question what runs on Linux."""

__version__ = "0.1.0"
