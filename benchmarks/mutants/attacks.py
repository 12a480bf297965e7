"""Faults in ``attacks/``: attacks, targets, feasibility, the audit."""

from __future__ import annotations

from benchmarks.mutants.faults import Fault

# The tests, each of one subject.
REFERENCE, PARTS, CHECKS = (f"tests/attacks/test_{name}.py" for name in ("reference", "parts", "audit_checks"))
TRAPS, INSIDE, MODES = (f"tests/attacks/test_{name}.py" for name in ("traps", "inside", "modes"))
THREAT, ORACLES, CONTRACT = (f"tests/attacks/test_{name}.py" for name in ("threat", "oracles", "contract"))
AUDIT, EVALUATE, JOINT = (f"tests/attacks/test_{name}.py" for name in ("audit", "evaluate", "joint"))
VIEWS, STANDING, SETTLED = (f"tests/attacks/test_{name}.py" for name in ("multiview", "standing", "settled"))
DENSE, CORRUPTED, ERRORS = (f"tests/attacks/test_{name}.py" for name in ("dense", "corruptions", "corruption_errors"))

GRADIENT, STATES, THREATS = "attacks/methods/gradient.py", "attacks/methods/equilibrium.py", "attacks/threat.py"
STEPS, CLIMB, AIMS, BATCH = (f"attacks/{name}.py" for name in ("methods/apgd", "climbing", "aims", "evaluation/batch"))
SOLVE, RUNS, TARGET, WITHIN = "attacks/methods/joint.py", "attacks/runs.py", "attacks/target.py", "attacks/inside.py"
PIXELS, KINDS = "attacks/dense/attack.py", "attacks/corruptions/kinds.py"
SEARCH = "attacks/methods/search.py"
OBJECTIVES, BASE, COUNTS = "attacks/objectives.py", "attacks/base.py", "attacks/counts.py"
WEAK, SOLVER, SLOPES, MODEL, PROBES = (
    f"attacks/evaluation/{name}.py"
    for name in ("attack_checks", "solver_checks", "gradient_checks", "model_checks", "probes")
)

SOURCES, TRAINED = "tests/attacks/test_sources.py", "tests/tasks/classify/test_sources.py"

# ruff: noqa: E501 (a fault a line)
FAULTS = [
    Fault("APGD stays where it is at a checkpoint", STEPS, "torch.where(wide, top.x, self.point)", "self.point", (f"{REFERENCE}::test_every_point_of_apgd",)),
    Fault("APGD keeps its momentum when it goes back", STEPS, "torch.where(wide, top.x, self.before)", "self.before", (f"{REFERENCE}::test_every_point_of_apgd",)),
    Fault("APGD never counts rises", STEPS, "(self.rises < rho * (k - self.last)) | stuck", "stuck", (f"{REFERENCE}::test_every_point_of_apgd",)),
    Fault("APGD never sees that it is stuck", STEPS, "< rho * (k - self.last)) | stuck", "< rho * (k - self.last))", (f"{REFERENCE}::test_every_point_of_apgd",)),
    Fault("APGD without momentum", STEPS, "+ self.momentum * (point - way.before)", "", (f"{REFERENCE}::test_every_point_of_apgd",)),
    Fault("APGD halves to a third", STEPS, "self.fraction / 2", "self.fraction / 3", (f"{REFERENCE}::test_every_point_of_apgd",)),
    Fault("APGD's checkpoints too close", STEPS, "max(gap - 0.03, 0.06)", "max(gap - 0.05, 0.02)", (f"{CONTRACT}::test_checkpoints_of_apgd_are_those_of_the_paper",)),
    Fault("APGD's first step is short", STEPS, '1.0 if threat.norm == "l1" else 2.0', "1.0", (f"{REFERENCE}::test_every_point_of_apgd",)),
    Fault("APGD's rises are never reset", STEPS, "self.rises = torch.zeros_like(self.rises)", "pass", (f"{REFERENCE}::test_every_point_of_apgd",)),
    Fault("a climb drops its best points", CLIMB, "self.best.enter(point, gap, self.at)", "pass", (f"{REFERENCE}::test_every_point_of_pgd",)),
    Fault("PGD retracts instead of projecting", GRADIENT, "threat.project(point, x) if self.exact else threat.retract(point, x)", "threat.retract(point, x)", (f"{REFERENCE}::test_every_point_of_pgd",)),
    Fault("PGD's momentum is lost", GRADIENT, "self.momentum * pull + gradient", "gradient", (f"{REFERENCE}::test_every_point_of_pgd",)),
    Fault("PGD's default step", GRADIENT, "2.5 / self.steps if self.step is None", "0.5 / self.steps if self.step is None", (f"{REFERENCE}::test_the_default_step_of_pgd",)),
    Fault("PGD does not look at its last point", GRADIENT, "ascent.look(way.point)", "pass", (f"{REFERENCE}::test_every_point_of_pgd",)),
    Fault("warm starts are never used", CLIMB, "return self.state if self.warm else None", "return None", (f"{PARTS}::test_warm_starts_save_evaluations",)),
    Fault("a warm search believes a warm break", SEARCH, "gap[broken] = super().__call__(points[broken], at[broken], least[broken])", "pass", (f"{PARTS}::test_only_a_fresh_start_breaks",)),
    Fault("a warm search never keeps a state", SEARCH, "old[at[better]] = new[better]", "pass", (f"{PARTS}::test_a_warm_search_is_cheaper_and_as_strong",)),
    Fault("the joint attack looks before it has settled", SOLVE, "if step < self.settle or self.logits is None:", "if self.logits is None:", (JOINT,)),
    Fault("the joint attack ignores its start", SOLVE, "            run.start,\n", "            x,\n", (f"{PARTS}::test_the_joint_attack_starts_where_it_is_told",)),
    Fault("the end of the joint solve is dropped", SOLVE, "[seen.strongest, solution.x]", "[seen.strongest, seen.strongest]", (f"{PARTS}::test_the_end_of_the_joint_solve_is_looked_at",)),
    Fault("the joint attack minimises", SOLVE, "-self.objective(logits, self.y, self.aimed)", "self.objective(logits, self.y, self.aimed)", (f"{CONTRACT}::test_attacks_attack",)),
    Fault("a later run replaces a stronger one", RUNS, "better = gap > self.margin[at]", "better = gap > -1e30", (f"{PARTS}::test_a_later_run_never_replaces_a_stronger_find",)),
    Fault("the best is the last", RUNS, "better = gap > self.margin\n", "better = gap > -1e30\n", (f"{PARTS}::test_the_best_is_kept_by_margin",)),
    Fault("broken samples are attacked again", RUNS, "torch.nonzero(best.margin <= 0)", "torch.nonzero(best.margin <= 1e30)", (f"{PARTS}::test_what_is_broken_is_left_alone_by_later_runs",)),
    Fault("restarts begin at the image", RUNS, "if attack.random_start or number:", "if attack.random_start:", (f"{PARTS}::test_restarts_of_the_joint_attack_begin_elsewhere",)),
    Fault("restarts all begin at one point", RUNS, '"start", number,', '"start", 0,', (f"{SETTLED}::test_starts_belong_to_the_image_the_run_and_the_seed",)),
    Fault("starts belong to the place in the batch", RUNS, "fingerprint(pixels[i])", "str(i)", (f"{SETTLED}::test_starts_belong_to_the_image_the_run_and_the_seed",)),
    Fault("what is broken stays in the climb", CLIMB, "if not bool(through.any()):", "if True:", (f"{SETTLED}::test_nobody_is_asked_again_after_a_break",)),
    Fault("those that stand leave with the others", CLIMB, "torch.nonzero(~through)[:, 0]", "torch.nonzero(~through)[:0, 0]", (f"{SETTLED}::test_nobody_is_asked_again_after_a_break",)),
    Fault("a warm climb believes a warm break", CLIMB, "if self.judge is not None and len(asked):", "if False:", (f"{SETTLED}::test_only_a_fresh_start_lets_a_sample_go",)),
    Fault("a break within rounding is one", AIMS, "margin(logits, y) > rounding", "margin(logits, y) > 0", (f"{SETTLED}::test_a_break_has_to_be_clear_of_rounding",)),
    Fault("an evaluation spares nobody", BATCH, "attack.until_broken()", "attack", (f"{SETTLED}::test_a_suite_leaves_alone_what_is_broken",)),
    Fault("a search goes on after a break", SEARCH, "if bool((hunt.margin > 0).any()):", "if False:", (f"{SETTLED}::test_the_search_asks_only_about_those_that_stand",)),
    Fault("the box is not looked at", THREATS, "torch.maximum(low - flat, flat - high).amax(1)", "torch.zeros_like(flat[:, 0])", (f"{PARTS}::test_a_point_inside_the_ball_and_outside_the_box",)),
    Fault("a hundred times the slack", THREATS, "return 4.0 * torch.finfo", "return 400.0 * torch.finfo", (f"{PARTS}::test_what_rounding_is_forgiven",)),
    Fault("L1 steps on pinned pixels", THREATS, "gradient * ~(((point >= high)", "gradient * torch.ones_like(((point >= high)", (THREAT, ORACLES)),
    Fault("random starts leave the box", THREATS, "return torch.minimum(torch.maximum(x + delta.view_as(x), low), high)\n\n    def describe", "return x + delta.view_as(x)\n\n    def describe", (THREAT,)),
    Fault("a scaled threat is the same", THREATS, "radius=self.radius * factor", "radius=self.radius", (THREAT, f"{CHECKS}::test_radius_alone")),
    Fault("an intermediate attack without ensemble", STATES, "if self.ensemble and len(self.states) > 1:", "if False:", (f"{PARTS}::test_the_ensemble_of_states_is_one_more_run",)),
    Fault("intermediate steps are not damped", STATES, "leaf)), self.damping)", "leaf)), 1.0)", (f"{PARTS}::test_gradients_through_intermediate_states",)),
    Fault("the carried adjoint forgets the multiplier", STATES, "value.sum() + (image * self.mu).sum()", "value.sum()", (f"{PARTS}::test_the_carried_adjoint_ends_at_the_gradient",)),
    Fault("NaN scores have a finite margin", OBJECTIVES, "unusable(logits) | torch.isnan(gap)", "torch.isnan(gap)", (f"{PARTS}::test_scores_that_are_none_have_an_infinite_margin",)),
    Fault("infinite scores are usable", OBJECTIVES, "torch.isnan(logits) | (logits == torch.inf)", "torch.isnan(logits)", (f"{PARTS}::test_scores_that_are_none_have_an_infinite_margin",)),
    Fault("arg max of NaN is a label", TARGET, "torch.where(answered_all, logits.argmax(1), -1)", "logits.argmax(1)", (f"{TRAPS}::test_what_is_no_number_is_never_robust",)),
    Fault("settings do not reach the equilibrium", TARGET, "overrides | self.settings | start", "overrides | start", (f"{INSIDE}::test_settings_reach_the_inside",)),
    Fault("an equilibrium that was missed has settled", WITHIN, ".all(0),", ".any(0),", (f"{INSIDE}::test_ensembles_settle_when_all_members_do",)),
    Fault("wrapped equilibria are not found", WITHIN, "for part in model.children() for one", "for part in () for one", (f"{INSIDE}::test_what_has_not_converged_is_not_robust",)),
    Fault("the mode of the caller stays", "attacks/modes.py", "if torch.is_inference_mode_enabled() else", "if False else", (MODES,)),
    Fault("the books grow for ever", COUNTS, "len(self.solves) > OPEN", "len(self.solves) > 10**9", (f"{INSIDE}::test_the_books_do_not_grow",)),
    Fault("closed solves are forgotten", COUNTS, "self._vjps += closed.vjp + closed.adjoint_vjp", "pass", (f"{INSIDE}::test_the_books_do_not_grow",)),
    Fault("a found point is not brought back", BASE, "if bool(outside.any()):", "if False:", (f"{CONTRACT}::test_what_an_attack_returns_is_not_believed", PARTS)),
    Fault("what is wrong untouched is attacked", BASE, "(self.clean.label == self.y) & (", "(self.y == self.y) & (", (f"{PARTS}::test_what_is_wrong_untouched_stays_untouched",)),
    Fault("monotone never", WEAK, "if any(after > before + 2.5", "if any(after > before + 1e9", (f"{CHECKS}::test_radius_alone",)),
    Fault("stronger never", WEAK, "if broken is not None and broken >", "if False and broken is not None and broken >", (f"{CHECKS}::test_steps_alone",)),
    Fault("large radius never", WEAK, "if left > 2.5 * case.audit.share:", "if False:", (f"{CHECKS}::test_large_radius_alone",)),
    Fault("search wins never", WEAK, "if taken > max(1.0", "if taken > 1e9 * max(1.0", (f"{CHECKS}::test_search_alone",)),
    Fault("adjoint-solve never", SLOPES, "float(left.median()) > 1e-2", "float(left.median()) > 1e9", (f"{CHECKS}::test_an_adjoint_system_without_solution",)),
    Fault("adjoint never", SLOPES, "if low > 10 * case.audit.share:", "if False:", (f"{AUDIT}::test_a_gradient_that_depends_on_the_adjoint",)),
    Fault("saturated never", SLOPES, "elif flat > 10 * case.audit.share:", "elif False:", (f"{CHECKS}::test_saturated_alone",)),
    Fault("zero gradients never", SLOPES, "if without > case.audit.share:", "if False:", (f"{AUDIT}::test_a_quantised_head_has_no_gradient",)),
    Fault("wrong gradients never", SLOPES, "if apart > 0.25:", "if False:", (f"{AUDIT}::test_a_gradient_that_lies",)),
    Fault("the solver's budget never", SOLVER, "own.label != longer.label", "own.label != own.label", (f"{AUDIT}::test_a_model_that_stops_early",)),
    Fault("starts never", SOLVER, "both & (starts.label != longer.label)", "both & (starts.label != starts.label)", (f"{AUDIT}::test_several_equilibria",)),
    Fault("unconverged never", SOLVER, "if clean + attacked + apart:", "if False:", (f"{AUDIT}::test_a_model_that_stops_early",)),
    Fault("tight is not tight", PROBES, "small = 100 * torch.finfo(dtype).eps", "small = 1e-2", (f"{CHECKS}::test_the_converged_model_is_converged",)),
    Fault("NaN scores are no finding", MODEL, "if clean + attacked:", "if False:", (f"{CHECKS}::test_one_trap_one_answer",)),
    Fault("random models never", MODEL, "if varies > case.audit.share:", "if False:", (f"{CHECKS}::test_one_trap_one_answer",)),
    Fault("memory never", MODEL, "if remembers > case.audit.share:", "if False:", (f"{CHECKS}::test_one_trap_one_answer",)),
    Fault("company never", MODEL, "if company > case.audit.share:", "if False:", (f"{CHECKS}::test_one_trap_one_answer",)),
    Fault("overridden forwards never", MODEL, "if strange:", "if False:", (f"{CHECKS}::test_one_trap_one_answer",)),
    Fault("level scores never", MODEL, "if level > case.audit.share", "if level > 1e9 + case.audit.share", (f"{TRAPS}::test_a_trap_is_told[level]",)),
    Fault("probabilities never", MODEL, "if bool((scores >= 0).all()) and", "if False and", (f"{TRAPS}::test_a_trap_is_told[softmax]",)),
    Fault("two faces never", MODEL, "if shown > case.audit.share:", "if False:", (f"{TRAPS}::test_a_trap_is_told[another where gradients are]",)),
    Fault("only clean images are asked about again", MODEL, "asked_again(case.target, few, CALLS)", "asked_again(case.target, case.x[:FEW], CALLS)", (f"{TRAPS}::test_a_trap_is_told[random off the known]",)),
    Fault("partial gradients never", SLOPES, "if hidden > 0.5:", "if False:", (f"{TRAPS}::test_a_trap_is_told[half of the pixels]",)),
    Fault("gradients without numbers never", SLOPES, "if lost > case.audit.share:", "if False:", (f"{TRAPS}::test_a_trap_is_told[root of nothing]",)),
    Fault("lost entries are not counted", TARGET, "~there.flatten(1).all(1)", "~there.flatten(1).any(1)", (f"{TRAPS}::test_a_trap_is_told[root of nothing]",)),
    Fault("a model may write into the images", TARGET, "if self.shifted else x.clone()", "if self.shifted else x", (f"{TRAPS}::test_memory_that_a_model_writes_to_changes_no_figure",)),
    Fault("a model may take its answers back", TARGET, "logits = logits.clone()", "pass", ("tests/attacks/test_targets.py::test_an_answer_stays_what_it_was",)),
    Fault("scores from elsewhere are taken", "attacks/contract.py", "if logits.device != x.device:", "if False:", (f"{TRAPS}::test_what_is_no_classifier_is_refused_before_anything_is_attacked",)),
    Fault("a part of a batch is not asked for before", "attacks/evaluation/asked.py", "    check_answers(target, first)\n    return", "    return", (f"{TRAPS}::test_what_is_no_classifier_is_refused_before_anything_is_attacked",)),
    Fault("noise is taken for a slope", PROBES, "apart > 3.0 * noise", "apart > -1.0", (f"{CHECKS}::test_slopes_off_the_gradient",)),
    Fault("scores that do not move are taken for a slope", PROBES, "& (found > 0.5 * claimed)", "", (f"{CHECKS}::test_slopes_off_the_gradient",)),
    Fault("SegPGD counts all pixels alike", PIXELS, "torch.where(right, 1.0 - share, share)", "torch.where(right, 1.0, 1.0)", (f"{DENSE}::test_losses_by_hand",)),
    Fault("ignored pixels are attacked", PIXELS, "weight = self.weights(scores.detach().argmax(1) == truth, progress).to(loss) * there", "weight = self.weights(scores.detach().argmax(1) == truth, progress).to(loss)", (f"{DENSE}::test_losses_by_hand",)),
    Fault("ignored pixels are counted", "attacks/dense/evaluate.py", "told = torch.where(counted(y), label, -1)", "told = label", (f"{DENSE}::test_figures_by_hand",)),
    Fault("the last attack is the worst", "attacks/dense/evaluate.py", "worse = wrong > most", "worse = wrong > -1", (f"{DENSE}::test_the_worst_image_is_kept",)),
    Fault("pixels without an equilibrium count", "attacks/dense/evaluate.py", "torch.where(rows(prediction.converged, prediction.label), prediction.label, -1)", "prediction.label", (f"{DENSE}::test_an_equilibrium_and_its_missed_samples",)),
    Fault("glass swaps nothing", KINDS, "place[row * width + column] = place[", "place[0] = place[", (f"{CORRUPTED}::test_glass_puts_neighbours_in_the_place_of_pixels",)),
    Fault("fog without its formula", KINDS, "return misty * top / (top + thick)", "return misty", (f"{CORRUPTED}::test_fog_hides_by_the_published_formula",)),
    Fault("a streak to both sides", "attacks/corruptions/fields.py", "steps = np.arange(2 * math.ceil(radius) + 1)", "steps = np.arange(-math.ceil(radius), math.ceil(radius) + 1)", (f"{CORRUPTED}::test_kernels_and_zoom",)),
    Fault("severities are counted from none", "attacks/corruptions/families.py", "self.small[severity - 1]", "self.small[severity - 2]", (f"{CORRUPTED}::test_noise_has_the_moments_of_its_levels",)),
    Fault("draws hang on the batch", "attacks/corruptions/families.py", "family, first + number", "family, number", (f"{CORRUPTED}::test_a_picture_is_corrupted_alike_wherever_it_stands",)),
    Fault("mCE of the clean error", "attacks/corruptions/report.py", "sum(c) - len(SEVERITIES) * clean for", "sum(c) for", (f"{ERRORS}::test_mean_corruption_error_by_hand",)),
    Fault("one view is all views", "attacks/views.py", "r if i == view else 0.0 for", "r for", (VIEWS,)),
    Fault("an interval with one side", "attacks/statistics.py", "tail = (1.0 - confidence) / 2.0", "tail = 1.0 - confidence", (EVALUATE,)),
    Fault("one view inside is not enough", "attacks/sources.py", "for one in self.alone().values()]).amin(0)", "for one in self.alone().values()]).amax(0)", (SOURCES,)),
    Fault("the farthest view instead of the nearest", "attacks/sources.py", "found[away.argmin(0)", "found[away.argmax(0)", (SOURCES,)),
    Fault("the view that moved is put back", "attacks/sources.py", "best = torch.stack([one.violation(point, x) for one in self.alone().values()]).argmin(0)", "best = torch.stack([one.violation(point, x) for one in self.alone().values()]).argmax(0)", (SOURCES,)),
    Fault("the steepest view whatever its radius", "attacks/sources.py", "gain = (gradient * whole * self.steps(gradient, 1.0))", "gain = (gradient * whole)", (SOURCES,)),
    Fault("noise of half the size", "attacks/methods/noise.py", "FAR = 100.0", "FAR = 0.1", (SOURCES,)),
    Fault("noise belongs to the place in the batch", "attacks/methods/noise.py", "number, fingerprint(sample)", "number", (SOURCES,)),
    Fault("a latent layer without its first ReLU", "attacks/fusion.py", "self.mix(torch.relu(latent))", "self.mix(latent)", (SOURCES,)),
    Fault("shares by squares", "attacks/fusion.py", "sizes = self.mix.weight.abs().unflatten", "sizes = self.mix.weight.unflatten", (SOURCES,)),
    Fault("MaxSSN takes the mildest source", "tasks/classify/sources.py", "worst = int(losses.argmax())", "worst = int(losses.argmin())", (TRAINED,)),
    Fault("MaxSSN never sees a clean batch", "tasks/classify/sources.py", "if batch.step % 2:", "if batch.step < 0:", (TRAINED,)),
    Fault("noise leaves the box", "tasks/classify/sources.py", "noisy.clamp(0.0, 1.0)", "noisy", (TRAINED,)),
    Fault("the adversary in all sources", "tasks/classify/sources.py", "threat if source is None else threat.only(source)", "threat", (TRAINED,)),
    Fault("the radius of a source forgets its size", "tasks/classify/sources.py", "self.noise * size**power", "self.noise", (TRAINED,)),
]  # fmt: skip
