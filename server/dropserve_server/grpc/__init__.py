"""The edge: what gRPC calls, and how requests, answers and errors look on its wire."""
