"""The graph that answers small requests."""

from __future__ import annotations

from dropserve_models.inference.plan import Plan
from dropserve_models.inference.program import Program, leading_to
from dropserve_models.inference.small.moments import write_noise, write_sums
from dropserve_models.inference.small.steps import A_DRAW, Suffix
from dropserve_models.inference.small.writer import Writer


def build(program: Program, plan: Plan, *, classifier: bool, closed: bool) -> bytes:
    """An ONNX model from boundary and masks to what `moments.finish` makes a prediction of.

    Its inputs are those of `Suffix` and `write_sums`, its outputs those of the latter.

    Parameters
    ----------
    classifier : bool
        Whether the outputs are class probabilities. A single column p is answered as (1 - p, p).
    closed : bool
        Whether the last dropout is integrated in closed form, where the plan has one.
    """
    writer = Writer()
    suffix = Suffix(writer, program, plan.tail)
    prediction, *noise = program.outputs
    affine = plan.affine if closed else None
    least = None
    suffix.write(leading_to(program.steps, {*noise, affine.x if affine else prediction}))
    if affine is not None:
        values, within = suffix.closed(affine, program.sites[plan.tail].rate)
        if plan.linearisation is not None:
            least = within
            values, within = suffix.corrected(values, within, plan.linearisation)
    else:
        values, within = suffix.value(prediction, A_DRAW), None
    if classifier and program.widths[prediction] == 1:
        other = writer.op("Sub", writer.constant(1.0), values)
        values = writer.op("Concat", other, values, axis=2)
    write_sums(writer, values, within, least, classifier=classifier)
    for name in noise:
        write_noise(writer, suffix.value(name))
    return writer.model()
