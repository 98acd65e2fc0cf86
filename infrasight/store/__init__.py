"""Where events are kept and asked about: ClickHouse behind one interface.

Belongs here: what is said to ClickHouse, how it is opened, migrated, written once and read safely. Does not belong here: what an event is
(schema/), when a batch is stored or acknowledged (server/). The only room that imports chdb.

    interface.py   Store: what every engine can do; QueryLimits, StoreStatistics
    locations.py   open_store: from a URL to an engine
    embedded.py    EmbeddedStore: chDB, ClickHouse inside this process
      directory.py   the data directory, which one process has at a time
      settings.py    the engine's configuration: memory, merges, who may do what
      batches.py     a batch, checked and shaped for its table
      engine.py      sessions with chDB, its errors made ours
      tables.py      database and tables, created and migrated
      repair.py      deduplication marks that a crash left without their rows
      reading.py     a query, from its text to the last chunk
      gate.py        what a query may be, judged on ClickHouse's own parse of it
"""

from infrasight.store.interface import QueryLimits, Store, StoreStatistics
from infrasight.store.locations import open_store

__all__ = ["QueryLimits", "Store", "StoreStatistics", "open_store"]
