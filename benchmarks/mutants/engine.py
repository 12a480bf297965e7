"""Faults in ``jiio/``: the solve, its adjoints, constraints and models."""

from __future__ import annotations

from benchmarks.mutants.faults import Fault

# The tests, each of one subject.
SAFE, UNITS, CALLS, MODES, NEAREST, EXPLICIT, RECORD, SOLVE, SOLVERS, BOOKS, BATCHES, KKT, ADJOINTS, PROX, WATCH = (
    f"tests/engine/test_{name}.py"
    for name in [
        "safeguards",
        "units",
        "calls",
        "modes",
        "nearest",
        "explicit",
        "solution",
        "solve",
        "solvers",
        "bookkeeping",
        "batches",
        "kkt",
        "adjoints",
        "prox",
        "watch",
    ]
)
HAND, PICKLE, CELLS, LYAPUNOV = (f"tests/models/test_{n}.py" for n in ("by_hand", "model_pickle", "models", "lyapunov"))

JOINT, SCALES, RENEWAL, PACKED = (f"jiio/operators/{name}.py" for name in ("joint", "scales", "renewal", "packed"))
LOOP, JUDGE, CALL, HOLD, LOW = (f"jiio/{name}.py" for name in ("iterate", "progress", "calls", "holding", "arithmetic"))
SETS, NEAR, ACTIVE, BLOCKS = (f"jiio/{name}.py" for name in ("constraints", "nearest", "prox", "blocks"))
ANDERSON, BROYDEN, EXACT, IMPLICIT = (
    f"jiio/{name}.py" for name in ("solvers/anderson", "solvers/broyden", "adjoints/kkt", "adjoints/implicit")
)
DESCENT, TANGENT, SOLUTION, LAYOUT = (f"jiio/{name}.py" for name in ("explicit", "tangents", "solution", "layout"))
MULTI, CONV, LAYER, ATTENTION, CROSS = (
    f"jiio/models/{name}.py"
    for name in (
        "cells/multiscale",
        "cells/conv",
        "sequences/transformer",
        "sequences/attention",
        "sequences/crossmodal",
    )
)

FAULTS = [
    # the joint map, its units and the loop
    Fault(
        "a shortened step passes for standing still",
        JOINT,
        "if self.rule.exact_step and not self.shortened:",
        "if self.rule.exact_step:",
        (f"{SAFE}::test_the_residual_is_that_of_a_full_step_also_where_steps_are_short",),
    ),
    Fault(
        "the residual of the input in other units",
        JOINT,
        "self._full_move(x, gradient, moved, full) * root)",
        "self._full_move(x, gradient, moved, full))",
        (SOLVE, UNITS),
    ),
    Fault(
        "the multiplier is not scaled back",
        SCALES,
        "return z, mu * self.sigma, x / self.root",
        "return z, mu, x / self.root",
        (SOLVE, KKT),
    ),
    Fault(
        "no floor under the curvature",
        SCALES,
        "torch.maximum(bend / moved, 1e-2 * steep / length)",
        "bend / moved",
        (f"{SAFE}::test_the_curvature_has_a_floor", UNITS),
    ),
    Fault(
        "own curvature of a regulariser forgotten",
        SCALES,
        "Scales(sigma, slope + own / sigma)",
        "Scales(sigma, slope)",
        (SOLVE,),
    ),
    Fault(
        "norms that underflow",
        SCALES,
        "largest * (part / largest).norm(dim=1, keepdim=True)",
        "part.norm(dim=1, keepdim=True)",
        (f"{UNITS}::test_the_scale_of_the_objective_does_not_matter_in_single_precision",),
    ),
    Fault(
        "small numbers of an objective are cut off",
        SCALES,
        "return torch.finfo(like.dtype).tiny",
        "return torch.finfo(like.dtype).eps ** 2",
        (f"{UNITS}::test_the_scale_of_the_objective_does_not_matter_in_single_precision",),
    ),
    Fault(
        "units are never looked at again",
        RENEWAL,
        "changed = asked & other[:, 0]",
        "changed = asked & ~asked",
        (UNITS,),
    ),
    Fault(
        "a curvature that fell is passed over",
        RENEWAL,
        "flatter = found.sigma * OTHER < old.sigma",
        "flatter = found.sigma < 0 * old.sigma",
        (UNITS,),
    ),
    Fault(
        "a gain that rose is passed over",
        RENEWAL,
        "wider = found.kappa > OTHER * kappa",
        "wider = found.kappa < 0 * kappa",
        (UNITS,),
    ),
    Fault("new units, old point", RENEWAL, "operator.scales.pack(z, mu, x, memory)), changed", "v), changed", (UNITS,)),
    Fault(
        "units of the neighbours change too",
        RENEWAL,
        "keep = ~changed[:, None]",
        "keep = ~changed.any().expand(len(changed), 1)",
        (UNITS,),
    ),
    Fault(
        "who goes on counts as converged",
        JUDGE,
        "self.status = self.status.masked_fill(mask, int(Status.RUNNING))",
        "pass",
        (UNITS,),
    ),
    Fault("converged without confirmation", JUDGE, "done = met & self.met", "done = met", (BOOKS, SOLVE)),
    Fault(
        "the floor of the arithmetic for everybody",
        JUDGE,
        "within | (still & lowest & self.finite)",
        "within | (lowest & self.finite)",
        (MODES,),
    ),
    Fault(
        "no floor of the arithmetic", JUDGE, "return within | (still & lowest & self.finite)", "return within", (MODES,)
    ),
    Fault(
        "a best point that is not the best",
        JUDGE,
        "better = self.running & ((merit < self.merit)",
        "better = self.running & ((merit < float('inf'))",
        (BOOKS, SOLVE),
    ),
    Fault(
        "the objective is no part of a stall",
        JUDGE,
        "better = better | lower",
        "better = better",
        (SOLVE, BOOKS, "tests/tasks/solving"),
    ),
    Fault(
        "never given up",
        JUDGE,
        "spent = lost & (self.retries > RETRIES)",
        "spent = lost & (self.retries < 0)",
        (BOOKS, BATCHES),
    ),
    Fault(
        "frozen samples move",
        LOOP,
        "        v = select(progress.running, following, progress.best_v)\n",
        "        v = following\n",
        (BOOKS, BATCHES, SOLVE),
    ),
    Fault(
        "the last evaluation is no image of the map",
        LOOP,
        "if step == max_steps - 2:",
        "if step < 0:",
        (BOOKS, ADJOINTS),
    ),
    Fault(
        "the history is kept by who went back", LOOP, "state = solver.restart(state, troubled)", "pass", (BOOKS, SOLVE)
    ),
    Fault(
        "a callback cannot stop",
        LOOP,
        "            progress.stop()\n            break\n",
        "            pass\n",
        (f"{EXPLICIT}::test_a_callback_may_stop",),
    ),
    Fault(
        "the accelerated step may go uphill",
        JOINT,
        "return select(uphill, point.image, following)",
        "return following",
        (SOLVE,),
    ),
    Fault("mixed points are not feasible again", JOINT, "self.prox.project(x / root) * root", "x", (BOOKS,)),
    # how a cell is called and held
    Fault("versions are not compared", CALL, "changed = [_version(t) != old for", "changed = [False for", (CALLS,)),
    Fault("numbers are not compared", CALL, "LOOKS = 2", "LOOKS = 0", (CALLS,)),
    Fault("only the first call is compared by its numbers", CALL, "LOOKS = 2", "LOOKS = 1", (CALLS,)),
    Fault("earlier results may be written to", CALL, "kept = [*given, *last]", "kept = [*given]", (CALLS,)),
    Fault(
        "autograd's word about work in place is passed on",
        CALL,
        'return "in-place operation" in words or',
        'return "in-place operations" in words and',
        (CALLS,),
    ),
    Fault("keys of dicts by their order", CALL, "conformed(out, z)", "out", (CALLS,)),
    Fault(
        "results of autocast stay low",
        CALL,
        "t.to(wanted) if isinstance(t, Tensor) and t.dtype == low else t",
        "t",
        (MODES,),
    ),
    Fault(
        "the cell does not see autocast",
        CALL,
        "with self.arithmetic.low_again():",
        "with self.arithmetic.full():",
        (MODES,),
    ),
    Fault("transforms are let in", CALL, "if stack is None:", "if True:", (MODES,)),
    Fault(
        "another thread's weights",
        HOLD,
        "self.values.get(threading.get_ident())",
        "next(iter(self.values.values()), None)",
        (CALLS,),
    ),
    Fault("held weights are never let go", HOLD, 'del held.weight.__dict__["forward"]', "pass", (CALLS,)),
    Fault(
        "the mode of gradients stays as the cell left it",
        HOLD,
        "if torch.is_grad_enabled() != grad:",
        "if False:",
        (CALLS,),
    ),
    Fault("the modes of modules stay as the cell left them", HOLD, "if part.training != mode:", "if False:", (CALLS,)),
    Fault(
        "autocast runs in the solver too",
        LOW,
        "return torch.autocast(self.device, enabled=False)",
        "return contextlib.nullcontext()",
        (MODES,),
    ),
    Fault(
        "the tangent of one call alone",
        TANGENT,
        "_tangent(cell, x, z.detach(), t * size, spec) / size",
        "start / size",
        (MODES,),
    ),
    # sets and the exact gradient
    Fault("zeros held inside an L1 ball", SETS, "return Active(~(binds & zero)", "return Active(~zero", (SAFE,)),
    Fault(
        "an L2 ball binds whatever the gradient",
        SETS,
        "& ((d * gradient).sum(1, keepdim=True) <= 0)\n        fixed = binds",
        "\n        fixed = binds",
        (SAFE,),
    ),
    Fault(
        "a box binds whatever the gradient",
        SETS,
        "((x <= low + slack) & (gradient > 0)) | ((x >= high - slack) & (gradient < 0))",
        "(x <= low + slack) | (x >= high - slack)",
        (PROX, KKT),
    ),
    Fault("touching is meant widely", SETS, "eps ** 0.75", "eps ** 0.4", (SAFE,)),
    Fault(
        "the threshold drowns in its rounding",
        SETS,
        "below = size - size.detach().amax(1, keepdim=True)",
        "below = size",
        (NEAREST,),
    ),
    Fault("Newton goes round", NEAR, "newton, middle) if k % 3 < 2 else middle", "newton, middle)", (NEAREST,)),
    Fault(
        "the L2 ball is forgotten beside an L1 ball",
        NEAR,
        "t = _crossing(distance, radius.expand_as(start), start, torch.ones_like(start))",
        "t = torch.ones_like(start)",
        (NEAREST,),
    ),
    Fault("both balls without derivative", NEAR, "t = _followed(distance, radius, t)", "pass", (NEAREST,)),
    Fault(
        "multipliers one by one",
        ACTIVE,
        "inverse = torch.linalg.pinv(gram.to(wide), hermitian=True).to(gram.dtype)",
        "inverse = torch.diag_embed(1 / gram.diagonal(dim1=1, dim2=2).clamp_min(1e-30))",
        (PROX, KKT),
    ),
    Fault(
        "normals of a block at another's place",
        BLOCKS,
        "(left, right)) for normal",
        "(right, left)) for normal",
        (EXPLICIT,),
    ),
    Fault(
        "parts without a prox take the first one",
        BLOCKS,
        "self.parts.get(name, Identity())",
        "self.parts.get(name, next(iter(self.parts.values())))",
        (EXPLICIT,),
    ),
    Fault(
        "no curvature of the active constraint",
        EXACT,
        "active.curvature(gradient), self._scale",
        "torch.zeros_like(gradient), self._scale",
        (KKT, ADJOINTS),
    ),
    Fault(
        "KKT listens to samples without numbers",
        EXACT,
        "g = grads[0].masked_fill(system.bad[:, None], 0.0)",
        "g = grads[0]",
        (f"{SAFE}::test_a_sample_without_numbers_gives_no_gradient",),
    ),
    Fault(
        "Implicit listens to samples without numbers",
        IMPLICIT,
        "g = grads[0].masked_fill(bad[:, None], 0.0)",
        "g = grads[0]",
        (f"{SAFE}::test_a_sample_without_numbers_gives_no_gradient",),
    ),
    # solvers
    Fault(
        "coefficients without a limit", ANDERSON, "& (gamma.abs().sum(1) <= self.limit)", "", (SOLVERS, SOLVE, BOOKS)
    ),
    Fault(
        "Anderson's restart forgets nothing",
        ANDERSON,
        "valid=state.valid & ~mask[:, None]",
        "valid=state.valid",
        (SOLVERS, BOOKS),
    ),
    Fault("rows are not scaled", ANDERSON, "a, b = a / rows[:, :, None], b / rows[:, :]", "a, b = a, b", (SOLVERS,)),
    Fault(
        "Broyden's first pair of nothing",
        BROYDEN,
        "usable = (bottom.abs() > tiny) & ~fresh[:, None]",
        "usable = bottom.abs() > tiny",
        (SOLVERS, BOOKS),
    ),
    # explicit problems and records
    Fault("no curvature learnt", DESCENT, "self.history.add(moved, change, taken)", "pass", (EXPLICIT,)),
    Fault("every trial is taken", DESCENT, "(value <= self.value + ENOUGH * promised + rounding) &", "", (EXPLICIT,)),
    Fault("kinks run on", DESCENT, "| (self.idle >= IDLE))", ")", (EXPLICIT,)),
    Fault(
        "the curvature of a kink is believed",
        DESCENT,
        "torch.where(known & far[:, None], seen, self.unit)",
        "torch.where(known, seen, self.unit)",
        (EXPLICIT,),
    ),
    Fault(
        "neighbours' histories are forgotten too",
        DESCENT,
        "t.masked_fill(mask[:, None, None], 0.0)",
        "t * (1 - mask.any().to(t))",
        (EXPLICIT,),
    ),
    Fault(
        "rows of a trace across steps", SOLUTION, "t[:, index] if name in across else t[index]", "t[index]", (RECORD,)
    ),
    Fault("counts are rounded to floats", SOLUTION, "dtype if t.is_floating_point() else None", "dtype", (RECORD,)),
    Fault("another format is read", "jiio/archive.py", 'if metadata.get("format") != form or', "if", (RECORD,)),
    # models
    Fault(
        "fusion without activation",
        MULTI,
        "fused.append(norm(mix(self.act(total))))",
        "fused.append(norm(mix(total)))",
        (HAND,),
    ),
    Fault("a coarse branch sharpened", MULTI, 'mode="nearest"', 'mode="bilinear"', (HAND,)),
    Fault(
        "a residual block without its state",
        CONV,
        "self.norm3(self.act(self.norm2(y) + z))",
        "self.norm3(self.act(self.norm2(y)))",
        (HAND,),
    ),
    Fault(
        "dropout not scaled",
        CONV,
        "return keep.to(z.dtype) / (1.0 - dropout)",
        "return keep.to(z.dtype)",
        (CELLS, "tests/models/test_multiscale.py"),
    ),
    Fault(
        "attention a token late",
        ATTENTION,
        "self.place(sinusoids(keys, self.width, q).flip(0))",
        "self.place(sinusoids(keys + 1, self.width, q)[1:].flip(0))",
        (HAND,),
    ),
    Fault("a span one token long", ATTENTION, "(distance >= span)", "(distance > span)", (HAND,)),
    Fault(
        "no bias of places",
        ATTENTION,
        "position = (q + self.place_bias[:, None]) @",
        "position = (q + self.content_bias[:, None]) @",
        (HAND,),
    ),
    Fault("a layer without its stream", LAYER, "h = h + self.down(inner", "h = self.down(inner", (HAND,)),
    Fault("padded states are kept", CROSS, '* own["there"])', ")", (HAND,)),
    Fault("padding of the own stream", CROSS, 'other["there"][..., 0] == 0', 'other["there"][..., 0] == 2', (HAND,)),
    Fault(
        "a violation in units of the field",
        "jiio/models/stable/lyapunov.py",
        "return gap.norm(dim=1) / field.norm(dim=1).clamp_min(tiny)",
        "return gap.norm(dim=1)",
        (HAND,),
    ),
    Fault("a pickled model in another mode", "jiio/models/build.py", "part.training = mode", "pass", (PICKLE,)),
    Fault(
        "a monotone cell's norm in half precision",
        "jiio/models/cells/monotone.py",
        "torch.promote_types(factors.dtype, torch.float32)",
        "factors.dtype",
        (PICKLE,),
    ),
]
