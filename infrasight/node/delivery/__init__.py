"""From columns to a server: together, encoded, written down, and kept until they are acknowledged.

    batcher.py    batches of one kind together, and encoded
    exporter.py   into the spool, and the stream to a server
    window.py     what is with the server, decided without I/O
    spool.py      what is not stored yet: what comes in, and goes out
    disk.py       its directory: written, synced, tried again when it fails
    limits.py     what it may take, and what is given up
    accounts.py   rows read, written down and lost, over kills
    lane.py       one lane of it: what was read, what is on its way
    segment.py    one file of it; record.py is what it holds
    leftovers.py  what earlier lives left
    cursors.py    how far each lane is done with
    tally.py      rows read and written down, to tell what a kill took
    note.py       what changes in one go
    slots.py      numbers in a file, that survive a kill
    epoch.py      the number of this life
"""
