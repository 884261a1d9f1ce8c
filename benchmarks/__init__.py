"""Where the figures of the README and the documentation come from: `python -m benchmarks.NAME`."""
