"""The reader: looks at the ring buffers now and then, and when one fills up, and copies out what is there."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from infrasight.actors import Actor, Mailbox
from infrasight.kernel import Records, Ring, Tracing
from infrasight.kernel.alarm import Alarm
from infrasight.node.delivery.tally import Tally, read_as_rows
from infrasight.node.flow import Attention, Drain, Loss
from infrasight.node.ledger import Ledger
from infrasight.schema.layout import Layout

IDLE_S = 0.045
"""How long after the first event of a quiet time the rings are looked at: what it may add before an event is visible."""
SHARE = 0.015
"""Of a core: what the node may use on events that come in a steady flow and that nobody watches, as long as it need not wait longer than it may."""
SWEEP_S = 0.002
"""How long until the next look between two parts of the accounts."""
TAKE_BYTES = 2 << 20
"""Most that is taken from one ring at a time."""
LIFE = "process"
"""The ring of process life."""
LIFE_TRIES = 100
"""How often one look tries to read all of process life: a program on another processor that has its record in hand, for a microsecond, hides what
came after it."""
LOSS_EVERY_S = 1.0
"""How often the kernel's loss counters are read."""
REST_EVERY_S = 10.0
"""How often rings in which nothing happens are let go of."""

Sweep = Iterator[tuple[tuple[Layout, Records] | None, str]]


class Reader(Actor):
    """A source. Blocks when its mailbox is full; what the rings then cannot hold is lost in the kernel and counted there."""

    name = "reader"

    def __init__(
        self,
        tracing: Tracing,
        outbox: Mailbox[Drain],
        interval_s: float = 10.0,
        patience_s: tuple[float, float] = (IDLE_S, IDLE_S),
        attention: Attention | None = None,
        ledger: Ledger | None = None,
        tally: Tally | None = None,
    ) -> None:
        """What the node itself lost comes from `ledger`; what is read is counted in `tally`.

        `interval_s`: between two rows of an account. `patience_s`: how long, at least and at most, until the next look when there was something
        and nobody watches, unless a ring fills up: each look costs as much as thousands of events, so what `SHARE` allows decides."""
        self._tracing, self._outbox, self._interval_s, self._patience_s = tracing, outbox, interval_s, patience_s
        self._attention = attention or Attention()
        self._ledger = ledger or Ledger()
        self._tally = tally or Tally()
        self._accounts_due_s = time.monotonic() + interval_s
        self._looked_cpu_s = time.process_time()
        self._sweep: Sweep = iter(())
        self._sweeping = self._ends_left = False
        self._stopping = False
        self._alarm: Alarm | None = None
        self._lost: dict[tuple[str, str], int] = {}
        self._losses_read_s = self._rested_s = 0.0
        self._losses_read_wall_ns = time.time_ns()
        self.events: dict[str, int] = {}
        """Records read, by probe."""

    @property
    def lost(self) -> dict[tuple[str, str], int]:
        """Events lost in the kernel by probe and reason, as last read."""
        return self._lost

    def stop(self) -> None:
        """Stop tracing, drain what the rings hold, end."""
        self._stopping = True
        if self._alarm:
            self._alarm.ring()

    async def run(self) -> None:
        """Until `stop`."""
        with self._tracing.alarm() as alarm:
            self._alarm = alarm
            while not self._stopping:
                if self._something():
                    found = await self._look()
                    await alarm.wait(self._wait_s(found))
                else:
                    await self._first(alarm)
        self._tracing.detach()
        self._sweeping = False
        self._losses_read_s = self._accounts_due_s = 0.0
        self._interval_s = math.inf  # accounts once more, and then no more
        while await self._look() or self._accounts_due_s < math.inf:
            pass

    async def _first(self, alarm: Alarm) -> None:
        """Wait until anything happens, and then a while for what happens with it, or until there is something to do in any case. A node that looked
        22 times a second would use a hundredth of a core for nothing."""
        self._tracing.await_first()
        if self._something():  # it came before the kernel side knew that it is awaited
            return
        due_s = min(self._losses_read_s + LOSS_EVERY_S, self._accounts_due_s) - time.monotonic()
        if await alarm.wait(max(due_s, 0.0)) and not self._stopping:
            await alarm.wait(self._wait_s(found=False))

    def _something(self) -> bool:
        """Whether a look would find anything."""
        now = time.monotonic()
        due = self._sweeping or self._ends_left or now - self._losses_read_s >= LOSS_EVERY_S or now >= self._accounts_due_s
        return due or any(ring.fill() for ring in self._tracing.rings)

    async def _look(self) -> bool:
        """Drain the rings once. Whether there was anything."""
        drain = self._drain()
        if not (drain.life or drain.data or drain.losses or drain.accounts or drain.swept):
            return False
        await self._outbox.put(drain)
        return True

    def _wait_s(self, found: bool) -> float:
        """Until the next look; of a ring that has filled up meanwhile, or was not emptied, the alarm does not tell again."""
        if any(ring.is_filled() for ring in self._tracing.rings):
            return 0
        used_s = time.process_time() - self._looked_cpu_s
        self._looked_cpu_s += used_s
        least_s, most_s = self._patience_s if found and not self._attention.watched else (IDLE_S, IDLE_S)
        return SWEEP_S if self._sweeping or self._ends_left else min(max(used_s / SHARE, least_s), most_s)

    def _drain(self) -> Drain:
        # Accounts before the rings: one that is settled meanwhile is found there, and is then the newer.
        looked_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        accounts, swept = self._accounts()
        data = self._ends()
        whole_until_ns = 0 if self._ends_left else looked_ns
        # How far the events go is fixed before process life is read: so the fork of every process in them has been read when they are.
        ends = [(ring, ring.end()) for ring in self._tracing.rings if ring.name != LIFE]
        life, whole = self._life()
        for ring, end in ends:
            taken = self._take(ring, end) if whole else []
            data += taken
            if not ring.read_up_to(end):  # what is left there came later than all that was taken
                whole_until_ns = min(whole_until_ns, max((int(records["enter_ns"].max()) for _, records in taken), default=0))
        self._rest()
        offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return Drain(life, data, self._losses(), accounts, offset_ns, looked_ns, swept, whole_until_ns)

    def _life(self) -> tuple[list[Records], bool]:
        """Process life until now, and whether that is all of it. If not, events wait for the next look."""
        life, whole = list[Records](), True
        for ring in (each for each in self._tracing.rings if each.name == LIFE):
            end = ring.end()
            for _ in range(LIFE_TRIES):
                life += [records for _, records in self._take(ring, end, ring.size)]
                if whole := ring.read_up_to(end):
                    break
        return life, whole

    def _rest(self) -> None:
        if time.monotonic() - self._rested_s >= REST_EVERY_S:
            self._rested_s = time.monotonic()
            for ring in self._tracing.rings:
                ring.rest()

    def _accounts(self) -> tuple[list[tuple[Layout, Records]], str]:
        """Some of the accounts, when they are due, and the kind of which these were the last: one look is not to take so long that the rings fill.
        Not before all ends of before have come: of what is not seen for two sweeps, the end is taken to be lost."""
        if not self._sweeping:
            if time.monotonic() < self._accounts_due_s or self._ends_left:
                return [], ""
            self._accounts_due_s = time.monotonic() + self._interval_s
            self._sweep, self._sweeping = self._swept(), True
        found, kind = next(self._sweep, (None, ""))
        if found is None and not kind:
            self._sweeping = False
        return ([found] if found else []), kind

    def _swept(self) -> Sweep:
        for accounts in self._tracing.accounts.values():
            if accounts.running:
                for records in accounts.read():
                    yield (accounts.layout, records), ""
                accounts.next_interval()
                yield None, accounts.layout.kind.name

    def _ends(self) -> list[tuple[Layout, Records]]:
        """Accounts that have come to their end and found the ring full, some of each kind."""
        found = [(accounts.layout, *accounts.take_ended()) for accounts in self._tracing.accounts.values()]
        self._ends_left = any(more for *_, more in found)
        return self._counted([(layout, records) for layout, records, _ in found if records is not None])

    def _take(self, ring: Ring, end: int, most_bytes: int = 0) -> list[tuple[Layout, Records]]:
        return self._counted(ring.take(end, most_bytes or TAKE_BYTES))

    def _counted(self, taken: list[tuple[Layout, Records]]) -> list[tuple[Layout, Records]]:
        for layout, records in taken:
            name = layout.kind.name
            self.events[name] = self.events.get(name, 0) + len(records)
            if read_as_rows(layout.kind):
                self._tally.take(name, len(records))
        return taken

    def _losses(self) -> list[Loss]:
        now = time.monotonic()
        if now - self._losses_read_s < LOSS_EVERY_S:
            return []
        since, until = self._losses_read_wall_ns, time.time_ns()
        self._losses_read_s, self._losses_read_wall_ns = now, until
        before, self._lost = self._lost, self._tracing.losses()
        more = {key: count - before.get(key, 0) for key, count in self._lost.items()}
        for (probe, reason), count in more.items():
            if count:
                self._ledger.tell(Loss(probe, reason, count, since, until))
        return self._ledger.take()
