"""Faults in ``attacks/``: attacks, targets, feasibility, the audit."""

from __future__ import annotations

from benchmarks.mutants.faults import Fault

# The tests, each of one subject.
REFERENCE, PARTS, CHECKS = (f"tests/attacks/test_{name}.py" for name in ("reference", "parts", "audit_checks"))
TRAPS, INSIDE, MODES = (f"tests/attacks/test_{name}.py" for name in ("traps", "inside", "modes"))
THREAT, ORACLES, CONTRACT = (f"tests/attacks/test_{name}.py" for name in ("threat", "oracles", "contract"))
AUDIT, EVALUATE, JOINT = (f"tests/attacks/test_{name}.py" for name in ("audit", "evaluate", "joint"))
VIEWS, STANDING = (f"tests/attacks/test_{name}.py" for name in ("multiview", "standing"))

GRADIENT, STATES, THREATS = "attacks/methods/gradient.py", "attacks/methods/equilibrium.py", "attacks/threat.py"
SOLVE, RUNS, TARGET, WITHIN = "attacks/methods/joint.py", "attacks/runs.py", "attacks/target.py", "attacks/inside.py"
OBJECTIVES, BASE, COUNTS = "attacks/objectives.py", "attacks/base.py", "attacks/counts.py"
WEAK, SOLVER, SLOPES, MODEL, PROBES = (
    f"attacks/evaluation/{name}.py"
    for name in ("attack_checks", "solver_checks", "gradient_checks", "model_checks", "probes")
)

# ruff: noqa: E501 (a fault a line)
FAULTS = [
    Fault("APGD stays where it is at a checkpoint", GRADIENT, "torch.where(wide, self.x, point)", "point", (REFERENCE,)),
    Fault("APGD keeps its momentum when it goes back", GRADIENT, "torch.where(wide, self.x, before)", "before", (REFERENCE,)),
    Fault("APGD never counts rises", GRADIENT, "(self.rises < rho * (k - self.last)) | stuck", "stuck", (REFERENCE,)),
    Fault("APGD never sees that it is stuck", GRADIENT, "< rho * (k - self.last)) | stuck", "< rho * (k - self.last))", (REFERENCE,)),
    Fault("APGD without momentum", GRADIENT, "+ self.momentum * (point - before)", "", (REFERENCE,)),
    Fault("APGD halves to a third", GRADIENT, "self.fraction / 2", "self.fraction / 3", (REFERENCE,)),
    Fault("APGD's checkpoints too close", GRADIENT, "max(gap - 0.03, 0.06)", "max(gap - 0.05, 0.02)", (CONTRACT, REFERENCE)),
    Fault("APGD's first step is short", GRADIENT, '1.0 if threat.norm == "l1" else 2.0', "1.0", (REFERENCE,)),
    Fault("APGD's rises are never reset", GRADIENT, "self.rises = torch.zeros_like(self.rises)", "pass", (REFERENCE,)),
    Fault("PGD drops its best points", GRADIENT, "best.offer(point, slope.logits, y)\n            pull", "pull", (REFERENCE,)),
    Fault("PGD retracts instead of projecting", GRADIENT, "threat.project if self.exact else threat.retract", "threat.retract", (REFERENCE,)),
    Fault("PGD's momentum is lost", GRADIENT, "self.momentum * pull + gradient", "gradient", (REFERENCE,)),
    Fault("PGD's default step", GRADIENT, "2.5 / self.steps if self.step is None", "0.5 / self.steps if self.step is None", (REFERENCE,)),
    Fault("PGD does not look at its last point", GRADIENT, "best.offer(point, ascent.look(point), y)", "pass", (REFERENCE,)),
    Fault("warm starts are never used", GRADIENT, "return self.state if self.warm else None", "return None", (INSIDE, CONTRACT)),
    Fault("the joint attack looks before it has settled", SOLVE, "if step >= self.settle and", "if", (JOINT,)),
    Fault("the joint attack ignores its start", SOLVE, "            run.start,\n", "            x,\n", (PARTS,)),
    Fault("the end of the joint solve is dropped", SOLVE, "[seen.best.x, solution.x]", "[seen.best.x, seen.best.x]", (PARTS,)),
    Fault("the joint attack minimises", SOLVE, "-self.objective(logits, y, aimed)", "self.objective(logits, y, aimed)", (ORACLES, CONTRACT)),
    Fault("a later run replaces a stronger one", RUNS, "better = gap > self.margin[at]", "better = gap > -1e30", (PARTS,)),
    Fault("the best is the last", RUNS, "better = gap > self.margin\n", "better = gap > -1e30\n", (PARTS,)),
    Fault("broken samples are attacked again", RUNS, "torch.nonzero(best.margin <= 0)", "torch.nonzero(best.margin <= 1e30)", (PARTS,)),
    Fault("restarts begin at the image", RUNS, "if attack.random_start or number:", "if attack.random_start:", (PARTS,)),
    Fault("the box is not looked at", THREATS, "torch.maximum(low - flat, flat - high).amax(1)", "torch.zeros_like(flat[:, 0])", (PARTS,)),
    Fault("a hundred times the slack", THREATS, "return 4.0 * torch.finfo", "return 400.0 * torch.finfo", (PARTS,)),
    Fault("L1 steps on pinned pixels", THREATS, "gradient * ~(((point >= high)", "gradient * torch.ones_like(((point >= high)", (THREAT, ORACLES)),
    Fault("random starts leave the box", THREATS, "return torch.minimum(torch.maximum(x + delta.view_as(x), low), high)\n\n    def describe", "return x + delta.view_as(x)\n\n    def describe", (THREAT,)),
    Fault("a scaled threat is the same", THREATS, "radius=self.radius * factor", "radius=self.radius", (THREAT, CHECKS, AUDIT)),
    Fault("an intermediate attack without ensemble", STATES, "if self.ensemble and len(self.states) > 1:", "if False:", (PARTS,)),
    Fault("intermediate steps are not damped", STATES, "leaf)), self.damping)", "leaf)), 1.0)", (PARTS,)),
    Fault("the carried adjoint forgets the multiplier", STATES, "value.sum() + (image * self.mu).sum()", "value.sum()", (PARTS,)),
    Fault("NaN scores have a finite margin", OBJECTIVES, "unusable(logits) | torch.isnan(gap)", "torch.isnan(gap)", (PARTS, CONTRACT)),
    Fault("infinite scores are usable", OBJECTIVES, "torch.isnan(logits) | (logits == torch.inf)", "torch.isnan(logits)", (PARTS, TRAPS)),
    Fault("arg max of NaN is a label", TARGET, "torch.where(answered_all, logits.argmax(1), -1)", "logits.argmax(1)", (TRAPS,)),
    Fault("settings do not reach the equilibrium", TARGET, "overrides | self.settings | start", "overrides | start", (INSIDE,)),
    Fault("an equilibrium that was missed has settled", WITHIN, ".all(0),", ".any(0),", (INSIDE,)),
    Fault("wrapped equilibria are not found", WITHIN, "for part in model.children() for one", "for part in () for one", (INSIDE,)),
    Fault("the mode of the caller stays", "attacks/modes.py", "if torch.is_inference_mode_enabled() else", "if False else", (MODES,)),
    Fault("the books grow for ever", COUNTS, "len(self.solves) > OPEN", "len(self.solves) > 10**9", (INSIDE,)),
    Fault("closed solves are forgotten", COUNTS, "self._vjps += closed.vjp + closed.adjoint_vjp", "pass", (INSIDE,)),
    Fault("a found point is not brought back", BASE, "if bool(outside.any()):", "if False:", (CONTRACT, PARTS)),
    Fault("what is wrong untouched is attacked", BASE, "(self.clean.label == self.y) & (", "(self.y == self.y) & (", (CONTRACT,)),
    Fault("monotone never", WEAK, "if any(after > before + 2.5", "if any(after > before + 1e9", (CHECKS,)),
    Fault("stronger never", WEAK, "if broken is not None and broken >", "if False and broken is not None and broken >", (CHECKS,)),
    Fault("large radius never", WEAK, "if left > 2.5 * case.audit.share:", "if False:", (CHECKS,)),
    Fault("search wins never", WEAK, "if taken > max(1.0", "if taken > 1e9 * max(1.0", (CHECKS,)),
    Fault("adjoint-solve never", SLOPES, "float(left.median()) > 1e-2", "float(left.median()) > 1e9", (CHECKS,)),
    Fault("adjoint never", SLOPES, "if low > 10 * case.audit.share:", "if False:", (AUDIT,)),
    Fault("saturated never", SLOPES, "elif flat > 10 * case.audit.share:", "elif False:", (CHECKS,)),
    Fault("zero gradients never", SLOPES, "if without > case.audit.share:", "if False:", (AUDIT, TRAPS)),
    Fault("wrong gradients never", SLOPES, "if apart > 0.25:", "if False:", (AUDIT, TRAPS)),
    Fault("the solver's budget never", SOLVER, "own.label != longer.label", "own.label != own.label", (AUDIT, CHECKS)),
    Fault("starts never", SOLVER, "both & (starts.label != longer.label)", "both & (starts.label != starts.label)", (AUDIT,)),
    Fault("unconverged never", SOLVER, "if clean + attacked + apart:", "if False:", (AUDIT, CHECKS)),
    Fault("tight is not tight", PROBES, "small = 100 * torch.finfo(dtype).eps", "small = 1e-2", (CHECKS,)),
    Fault("NaN scores are no finding", MODEL, "if clean + attacked:", "if False:", (CHECKS,)),
    Fault("random models never", MODEL, "if varies > case.audit.share:", "if False:", (CHECKS,)),
    Fault("memory never", MODEL, "if remembers > case.audit.share:", "if False:", (CHECKS,)),
    Fault("company never", MODEL, "if company > case.audit.share:", "if False:", (CHECKS,)),
    Fault("overridden forwards never", MODEL, "if strange:", "if False:", (CHECKS,)),
    Fault("one view is all views", "attacks/views.py", "r if i == view else 0.0 for", "r for", (VIEWS,)),
    Fault("an interval with one side", "attacks/statistics.py", "tail = (1.0 - confidence) / 2.0", "tail = 1.0 - confidence", (EVALUATE,)),
]  # fmt: skip
