"""Training: a table in, a verified artifact out.

Data flows top to bottom::

    sources (delimited, arrays, bundled, columns)   a file or a bundled set -> Table
    task, split, standardise                        what to learn, from which rows, on which scale
    network, masks, losses, optimisers, fit         the dropout MLP and its training loop
    pipeline, export                                raw features -> answers, in torch and as ONNX
    trainer                                         all of it, published
"""
