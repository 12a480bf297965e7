"""What stands beside the pictures of ``jiio demo``."""

from .attack import HASTY, INNER, RADIUS, RATES, STRONGER
from .faces import FACES as COUNT
from .race import RATES as RACE_RATES
from .race import WITHIN

LEAD = (
    "An equilibrium network has no layers: its state is the fixed point of one cell. Here an input of such networks is "
    "optimised while they are still being solved: every step below costs one evaluation of the network and one "
    "vector-Jacobian product. Nothing was downloaded."
)
PHOTO = (
    "512 x 512 pixels of an astronaut (scikit-image), blurred, with scratches, a hole and noise on them. One prior, "
    "trained on noise alone, restores all of it: the energy is read off an equilibrium network, and image, state and "
    "multiplier are one solve. {measured, dB:.1f} dB become {restored, dB:.1f} dB in {evaluations} evaluations and "
    "{VJPs} VJPs. Every step is shown."
)
COMPARE = "Before and after: move the line."
ATTACK = (
    f"A classifier of faces against other pictures, trained against attacks. The upper two rows are the joint solve "
    f"(pictures, and {STRONGER:g} times what was added), the lower two PGD with hasty solves, each after as many calls "
    f"as the line says; L2 radius {RADIUS:g}."
)
STAIRS = (
    "PGD pays a forward and an adjoint solve for every stair (the length of its step is the best of "
    f"{', '.join(f'{rate:g}' for rate in RATES)} radii, its solves begin at the last state); hasty solves end after "
    f"{INNER[HASTY][1]} steps. The joint solve climbs with every call. Margins are those of fresh solves, which nobody "
    "is charged for. All arrive at much the same in the end: against hasty solves the joint one saves little here, and "
    "needs no length of a step to be chosen."
)
FACES = (
    f"{COUNT} held-out faces with an 8 x 8 hole: the decoded state of each joint step, with the known pixels as the "
    "network draws them; the last frame keeps those that were measured. Model: {how}."
)
SHEET = "Clean, measured, biharmonic fill (scikit-image), and jiio; the known pixels are kept."
QUALITY = (
    "Means over the test images; PSNR in dB with data range 1, SSIM with a Gaussian window. Total variation is tuned "
    "on training images. The decoder was trained with noise of 0.1 on the known pixels, as a regulariser; the test "
    "has none."
)
CONVERGENCE = (
    "RMS residuals of state, multiplier and input (median over the faces) against network calls. Left: the "
    "joint iteration, all three falling together. Middle: the nested loop over the same stretch, a full forward and "
    "adjoint solve per input step. Right: objective above the best known, at verified equilibria."
)
COST = (
    f"Calls of the network (evaluations + VJPs) until all faces are within {WITHIN:.0%} of the best objective "
    f"known and stay there. The nested loop is warm-started and has the best rate of "
    f"{', '.join(map(str, RACE_RATES))} for each rule; the joint solve runs on its defaults."
)
