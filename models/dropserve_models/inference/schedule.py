"""In which order a program's values are computed, and when they can be overwritten or dropped."""

from __future__ import annotations

from dropserve_models.inference.plan import Plan
from dropserve_models.inference.program import Program, Step, arguments


def schedule(program: Program, plan: Plan, wanted: set[str]) -> list[tuple[int, list[str]]]:
    """The steps that `wanted` values need, each with the values that are dead after it."""
    seen = set(wanted)
    order: list[tuple[int, list[str]]] = []
    for number in range(len(program.steps) - 1, -1, -1):
        step: Step = program.steps[number]
        if step.out in seen:
            reads = dict.fromkeys(arguments(step))
            if step.out in plan.fused:  # when thinning, it reads past the Dropout
                reads[plan.fused[step.out].x] = None
            order.append((number, [name for name in reads if name not in seen]))
            seen.update(reads)
    return order[::-1]
