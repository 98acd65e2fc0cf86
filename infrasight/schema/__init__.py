"""The event kinds, declared once.

Belongs here: what an event is made of (`kinds`), and what derives from that: record layout, Arrow schema, ClickHouse DDL, protobuf messages, the
reference page. Does not belong here: anything that reads, moves or judges an event.
"""

from infrasight.schema.arrow import arrow_schema
from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Type
from infrasight.schema.kinds import KINDS, LOSS_REASONS, NODE_LOSS_REASONS, PROBES, SHIPPED

__all__ = ["KINDS", "LOSS_REASONS", "NODE_LOSS_REASONS", "PROBES", "SHIPPED", "Column", "Field", "Kind", "Lane", "Slot", "Type", "arrow_schema"]
