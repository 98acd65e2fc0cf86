"""Where events are kept and asked about: ClickHouse behind one interface.

Belongs here: what is said to ClickHouse, how it is opened, migrated, written once and read safely. Does not belong here: what an event is
(schema/), when a batch is stored or acknowledged (server/). The only room that imports chdb and asynch.

    interface.py   Store: what every engine can do; QueryLimits, StoreStatistics
    locations.py   open_store: from a URL to an engine
    threads.py     ThreadedStore: what is the same for every engine
      batches.py     a batch, checked and named for its table
      joining.py     several batches as one insert, each in its table once
      copies.py      what was inserted twice all the same, found and taken out
      blocks.py      a batch as a block of the Native format, straight from Arrow's buffers
      tables.py      database and tables, created and migrated; steps.py: what older ones need
      views.py       the original's tables, which are views of them
      rolling.py     rollups, filled from what was stored
      healing.py     mutations of rows that are there
      session.py     what the others need of an engine; its errors made ours
      reading.py     a query, from its text to the last chunk
      gate.py        what a query may be, judged on ClickHouse's own parse of it
      settings.py    what engines are told: memory, merges, limits, who may do what
    embedded.py    EmbeddedStore: chDB, ClickHouse inside this process
      directory.py   the data directory, which one process has at a time
      engine.py      sessions with chDB
      repair.py      deduplication marks that a crash left without their rows
    server.py      ServerStore: a ClickHouse server
      addresses.py   hosts and logins, from a URL that holds no secret
      connection.py  the native protocol, by asynch: tables and inserts
      http.py        the HTTP interface: queries in any format
"""

from infrasight.schema.retention import Keep, Retention
from infrasight.store.interface import QueryLimits, Store, StoreStatistics
from infrasight.store.locations import open_store

__all__ = ["Keep", "QueryLimits", "Retention", "Store", "StoreStatistics", "open_store"]
