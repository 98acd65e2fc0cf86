"""Where runtimes have their sockets, unless it is said."""

from __future__ import annotations

from pathlib import Path

CONTAINERD = (Path("/run/containerd/containerd.sock"), Path("/run/k3s/containerd/containerd.sock"))
"""containerd's own, and k3s's."""
