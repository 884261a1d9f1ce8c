"""How good error bars are: `python -m benchmarks.uncertainty`."""
