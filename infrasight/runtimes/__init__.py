"""What the container runtimes of this machine say of their containers, and Kubernetes of their pods.

Belongs here: talking to each in its own language, and what all of them come to (`Facts`). Does not belong here: which container did something, which
the kernel tells, and what becomes of the facts, which is node/.

    facts.py        what is known of a container
    pods.py         what Kubernetes says of pods
    spec.py         what an OCI runtime specification says
    loose.py        JSON of a stranger
    limits.py       how much is taken from a stranger
    containerd.py   containerd, by its own API
    cri.py          cri-o, by the interface that Kubernetes has for runtimes
    docker.py       docker and podman
    kubernetes.py   the API server of Kubernetes
    http.py         what those two speak; the only module here importing aiohttp
    places.py       where sockets are, and what is spoken there
"""

from infrasight.runtimes.facts import Facts, Key, Told, Unknown
from infrasight.runtimes.places import USUAL, Place, Runtime, Socket, of_users

__all__ = ["USUAL", "Facts", "Key", "Place", "Runtime", "Socket", "Told", "Unknown", "of_users"]
