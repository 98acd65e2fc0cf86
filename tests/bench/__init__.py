"""`make bench`: what tracing costs, ours beside the peers, in one run.

A measure takes every tracer in turn, and all of them again for each repeat (A B C, A B C), so that a machine which drifts hits all alike;
every figure is printed as least, median and greatest. Everything runs on the same two cores. What belongs here: tracers, loads, measures,
figures. Nothing of the product is imported: it is measured from outside, through its commands.
"""
