"""The server: takes batches from nodes, stores them, and answers people.

Belongs here: what happens to a batch between the wire and the store, live views of it, and what the server's calls answer. Does not belong
here: how bytes travel (wire/), how ClickHouse is spoken to (store/), what an event is (schema/).

    ingest (a stream per node) >> router >> writer (the store; then the ack) >> ledger (what was stored, and what of nodes)
                                         >> live   (subscriptions)

    settings.py   what can be set
    graph.py      the actors and edges above
    access.py     who may do what: certificates and tokens
    session.py    one node's stream: its hello, its unacknowledged batches
    dead_letters.py  rows for what never can be stored
    ingest.py     streams in, deliveries out
    original.py   the same for agents of the original InfraSight; translation.py makes batches of their events
    budget.py     bytes that may be in use at a time
    router.py     a delivery to everyone who needs it
    writer.py     deliveries into the store, acknowledged afterwards; joining.py finds those that are stored together
    ledger.py     the tables that the server makes itself: batches, nodes
    live.py       subscriptions; filters.py decides which rows pass
    answers.py    Subscribe, Query and Status; nodes.py is what Status says of nodes
    program.py    one server's life from start to drained end (`python -m infrasight.server`)
"""
