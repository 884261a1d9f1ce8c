"""Small requests, each answered by one run of an ONNX Runtime graph.

For a few rows the arithmetic of a hundred passes takes less time than the calls that ask for it. So the
suffix, with its masks as inputs, is one graph (`graph`, `steps`), sums over its passes included (`moments`);
and masks are drawn by looking subsets up (`masks`), not from a seed as they are elsewhere.
"""
