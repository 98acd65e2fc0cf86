"""How many crashes are forgiven, and how long to wait after each. Decides only: no clock of its own, no waiting."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class RestartPolicy:
    """An actor may be restarted `budget` times within any `within_s`; the crash after that ends the graph."""

    budget: int = 5
    """Restarts per actor within the window. Enough to ride out a peer that restarts, too few to hide a bug that comes back every time."""
    within_s: float = 60.0
    """Seconds a crash is remembered. A crash a minute is worth a log line, not an outage."""
    backoff_s: float = 0.1
    """Seconds before the first restart; doubled for each further crash still remembered. Short: most crashes do not come twice."""
    backoff_max_s: float = 5.0
    """Longest wait in seconds, so that a recovered peer is noticed soon and five restarts fit well into the window."""


class RestartBudget:
    """One actor's account of crashes under a policy."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._crashed_at: deque[float] = deque()

    def spend(self, now: float) -> float | None:
        """Note a crash at `now` (seconds, any epoch, never backwards): seconds to wait before the restart, or None, over budget."""
        while self._crashed_at and now - self._crashed_at[0] >= self._policy.within_s:
            self._crashed_at.popleft()
        if len(self._crashed_at) >= self._policy.budget:
            return None
        self._crashed_at.append(now)
        backoff_s = self._policy.backoff_s * 2.0 ** (len(self._crashed_at) - 1)
        return min(self._policy.backoff_max_s, backoff_s)
