"""What error bars cost and how good they are: `python -m benchmarks.engine`."""
