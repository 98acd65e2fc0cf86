"""Events as people and scripts read them: rows from batches, one compact line or one JSON object per event.

Belongs here: what an event looks like as text, and making hostile text safe to show. Used by the node's printer and by the command line.
Does not belong here: where events come from, which ones are wanted, and anything that writes to a terminal.
"""
