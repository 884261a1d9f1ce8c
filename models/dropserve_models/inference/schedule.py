"""In which order a program's values are computed, and when they can be overwritten or dropped."""

from __future__ import annotations

from collections import Counter

from dropserve_models.inference.plan import Plan
from dropserve_models.inference.program import Linear, Program, Step, arguments


def read_once(program: Program) -> set[str]:
    """The results of linear layers that one step alone reads: it may overwrite them."""
    linear = {step.out for step in program.steps if isinstance(step, Linear)} - set(program.outputs)
    readers = Counter(name for step in program.steps for name in arguments(step))
    return {name for name in linear if readers[name] == 1}


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
