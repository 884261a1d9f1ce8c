"""What training a fleet costs: `python -m benchmarks.training`."""
