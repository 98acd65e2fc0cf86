"""The node agent: reader >> enricher >> batcher >> exporter.

Belongs here: taking records from the kernel's rings to encoded batches, and who did it. Does not belong here: how the kernel is made to tell
(`infrasight.kernel`), how bytes travel (`infrasight.wire`), what an event is (`infrasight.schema`).
"""

import os

# Read by Arrow when it is first imported. Its own allocator keeps what it has ever had; the system's gives it back (infrasight/node/memory.py).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
