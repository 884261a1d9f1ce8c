"""Making a model's Monte Carlo engine: built, checked against ONNX Runtime, and measured."""

from __future__ import annotations

from dropserve_models.errors import MonteCarloUnavailable
from dropserve_models.inference.agreement import MAX_DIFFERENCE, difference
from dropserve_models.inference.blueprint import Blueprint
from dropserve_models.inference.device.choice import AnyEngine, make_engine
from dropserve_models.inference.measuring import measured
from dropserve_models.inference.probe import probe
from dropserve_models.inference.program import Program


def prepared_engine(
    blueprint: Blueprint, program: Program, memory_bytes: int, *, measures: bool
) -> AnyEngine:
    """An engine that answers what ONNX Runtime answers, with dropout off.

    Parameters
    ----------
    blueprint : Blueprint
    program : Program
        The blueprint's.
    memory_bytes : int
        What a request may take beyond its input and its answer.
    measures : bool
        Whether it computes by what computing takes here; else by constants.

    Raises
    ------
    MonteCarloUnavailable
        They differ. The message does not name the model.
    """
    rows = probe(blueprint.info)
    engine = make_engine(
        program,
        blueprint.prefix,
        blueprint.opening,
        blueprint.info.task != "regression",
        memory_bytes,
        blueprint.info.provider,
        rows,
    )
    found = difference(engine.evaluate(rows), blueprint.session.run(rows, blueprint.heads))
    if not found <= MAX_DIFFERENCE:
        raise MonteCarloUnavailable(
            f"with dropout off, the Monte Carlo engine differs from ONNX Runtime by {found:.2g} "
            f"of the largest output, more than {MAX_DIFFERENCE:g}"
        )
    return measured(engine, rows) if measures else engine
