"""Faults under load, each of which ends in: produced == stored + dead-lettered + counted lost, and no row twice.

    node.py     a node without a kernel, in a process of its own: made-up rows, each with a number of its own, through the real batcher, spool and
                exporter
    server.py   the server program, with a store that ends the process at a chosen point, or that works with ClickHouse 18.16
    link.py     a TCP proxy that freezes, cuts, slows
    world.py    those processes, and the sum of what became of the rows
    clock.c     sets the clock of one process

Each fault is there twice: quick, for every run, and as `soak`, at full length; `make soak ARGS=tests/faults` prints the table of docs/RELIABILITY.md.
"""
