"""The whole path for real: the running kernel, a node, gRPC, a server, the embedded ClickHouse, and questions."""
