"""What the container runtimes of this machine say of their containers.

Belongs here: finding their sockets, talking to each in its own language, and what all of them come to (`Facts`). Does not belong here: which
container did something, which the kernel tells, and what becomes of the facts, which is node/.

    facts.py        what is known of a container
    spec.py         what an OCI runtime specification says
    containerd.py   containerd, by its own API
    places.py       where sockets are
"""

from infrasight.runtimes.containerd import Containerd
from infrasight.runtimes.facts import Facts
from infrasight.runtimes.places import CONTAINERD

__all__ = ["CONTAINERD", "Containerd", "Facts"]
