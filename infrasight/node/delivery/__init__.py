"""From columns to a server: together, encoded, and kept until they are acknowledged.

    batcher.py    batches of one kind together, and encoded
    window.py     what is on its way, decided without I/O
    exporter.py   the stream to the server
"""
