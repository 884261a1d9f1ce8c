"""Several processes that serve one port, and the supervisor that starts, restarts and stops them."""
