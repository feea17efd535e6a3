"""The paper's tables (Song et al., ICLR 2021), and two more of the same networks. Its numbers are of CIFAR-10."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from score_sde.experiments.paper import toy
from score_sde.experiments.paper.cells import (
    BITS,
    BOUND,
    DISTANCE,
    SCORE,
    Cell,
    Comparison,
    Finding,
    Table,
    comparisons,
)
from score_sde.experiments.sweep.space import Point

SAMPLES: Point = {"eval.enable_loss": False, "eval.enable_bpd": False, "eval.enable_sampling": True}

# Table 1: predictors and correctors, of the DDPM network trained at discrete times.

ANCESTRAL, REVERSE, FLOW, NONE = "ancestral", "reverse diffusion", "probability flow", "none"
PREDICTORS: dict[str, Point] = {
    ANCESTRAL: {"sampling.predictor": "ancestral_sampling"},
    REVERSE: {"sampling.predictor": "reverse_diffusion"},
    FLOW: {"sampling.predictor": "reverse_diffusion", "sampling.probability_flow": True},
}
NETWORKS = {"VE": "ve/cifar10_ddpm", "VP": "vp/ddpm/cifar10"}
# Predictor alone with N and 2 N steps, and with one corrector step each.
TABLE_1 = {
    ("VE", ANCESTRAL): ("4.98 ± .06", "4.88 ± .06", "3.62 ± .03"),
    ("VE", REVERSE): ("4.79 ± .07", "4.74 ± .08", "3.60 ± .02"),
    ("VE", FLOW): ("15.41 ± .15", "10.54 ± .08", "3.51 ± .04"),
    ("VP", ANCESTRAL): ("3.24 ± .02", "3.24 ± .02", "3.21 ± .02"),
    ("VP", REVERSE): ("3.21 ± .02", "3.19 ± .02", "3.18 ± .01"),
    ("VP", FLOW): ("3.59 ± .04", "3.23 ± .03", "3.06 ± .03"),
}
CORRECTOR_ONLY = {"VE": "20.43 ± .07", "VP": "19.06 ± .06"}
NO_CORRECTOR: Point = {"sampling.corrector": "none"}


class Scale(NamedTuple):
    """Sizes of the networks. num_scales: N. snr: the best r of Langevin steps by SDE and predictor (paper, Table 5)."""

    num_scales: int
    snr: Mapping[str, Mapping[str, float]]


def best_r(ancestral: float, reverse: float, flow: float, alone: float) -> dict[str, float]:
    return {ANCESTRAL: ancestral, REVERSE: reverse, FLOW: flow, NONE: alone}


SCALES = {
    "paper": Scale(1000, {"VE": best_r(0.17, 0.16, 0.17, 0.22), "VP": best_r(0.01, 0.01, 0.04, 0.27)}),
    "toy": Scale(toy.NUM_SCALES, {sde: best_r(*values) for sde, values in toy.SNR.items()}),
}


def table1(scale: Scale) -> Table:
    n, twice = str(scale.num_scales), str(2 * scale.num_scales)
    alone, doubled = NO_CORRECTOR, NO_CORRECTOR | {"sampling.num_scales": 2 * scale.num_scales}
    cells = []
    for (sde, predictor), numbers in TABLE_1.items():
        corrected = {"sampling.corrector": "langevin", "sampling.snr": scale.snr[sde][predictor]}
        columns = {f"P{n}": alone, f"P{twice}": doubled, f"PC{n}": corrected}
        for (column, options), number in zip(columns.items(), numbers, strict=True):
            options = SAMPLES | PREDICTORS[predictor] | options
            where = {"row": f"{sde}, {predictor}", "column": column, "config": NETWORKS[sde]}
            cells.append(Cell(figure=DISTANCE, paper=number, options=options, **where))
    for sde, number in CORRECTOR_ONLY.items():
        langevin = {"sampling.predictor": "none", "sampling.corrector": "langevin", "sampling.n_steps_each": 2}
        options = SAMPLES | langevin | {"sampling.snr": scale.snr[sde][NONE]}
        where = {"row": f"{sde}, {NONE}", "column": f"C{twice}", "config": NETWORKS[sde]}
        cells.append(Cell(figure=DISTANCE, paper=number, options=options, **where))
    rows = [f"{sde}, {predictor}" for sde, predictor in TABLE_1]
    findings = (
        Finding(
            f"One corrector step after each predictor step (PC{n}) is better than twice the predictor steps (P{twice})",
            comparisons([(row, f"PC{n}") for row in rows], [(row, f"P{twice}") for row in rows]),
        ),
        Finding(
            f"The corrector improves every predictor (PC{n} over P{n})",
            comparisons([(row, f"PC{n}") for row in rows], [(row, f"P{n}") for row in rows]),
        ),
        Finding(
            f"Correctors alone (C{twice}) are the worst choice at as many evaluations",
            comparisons([(row, f"P{twice}") for row in rows], [(f"{sde}, {NONE}", f"C{twice}") for sde, _ in TABLE_1]),
        ),
        Finding(
            f"Under VE the probability flow without a corrector (P{n}) is worse than the other predictors",
            comparisons([(f"VE, {p}", f"P{n}") for p in (ANCESTRAL, REVERSE)], [(f"VE, {FLOW}", f"P{n}")] * 2),
        ),
        Finding(
            "Reverse diffusion is better than ancestral sampling",
            tuple(
                Comparison((f"{sde}, {REVERSE}", column), (f"{sde}, {ANCESTRAL}", column))
                for sde, column in itertools.product(NETWORKS, (f"P{n}", f"P{twice}", f"PC{n}"))
            ),
        ),
    )
    about = (
        f"Distance of samples from the training images, by predictor and corrector. P: predictor alone, C: corrector "
        f"alone, PC: both; P{twice} has twice the steps, C{twice} two corrector steps for each of the {n} noise levels."
    )
    return Table(title="Table 1: predictors and correctors", about=about, cells=tuple(cells), findings=findings)


# Table 2: likelihoods, and samples of the probability-flow ODE.

TABLE_2 = {
    "DDPM (VP, discrete)": ("vp/ddpm/cifar10", "3.28", "3.37"),
    "DDPM cont. (VP)": ("vp/ddpm/cifar10_continuous", "3.21", "3.69"),
    "DDPM cont. (sub-VP)": ("subvp/cifar10_ddpm_continuous", "3.05", "3.56"),
    "DDPM++ cont. (VP)": ("vp/cifar10_ddpmpp_continuous", "3.16", "3.93"),
    "DDPM++ cont. (sub-VP)": ("subvp/cifar10_ddpmpp_continuous", "3.02", "3.16"),
    "DDPM++ cont. deep (VP)": ("vp/cifar10_ddpmpp_deep_continuous", "3.13", "3.08"),
    "DDPM++ cont. deep (sub-VP)": ("subvp/cifar10_ddpmpp_deep_continuous", "2.99", "2.92"),
}
LIKELIHOOD: Point = {"eval.enable_loss": False, "eval.enable_bpd": True}
ODE: Point = LIKELIHOOD | {"eval.enable_sampling": True, "sampling.method": "ode"}
SUBVP_BETTER = Finding(
    "Sub-VP has less bits/dim than VP, with the same network",
    tuple(
        Comparison((f"{net} (sub-VP)", "bits/dim"), (f"{net} (VP)", "bits/dim"))
        for net in ("DDPM cont.", "DDPM++ cont.", "DDPM++ cont. deep")
    ),
)
NETWORK_BETTER = Finding(
    "The better network has less bits/dim: DDPM++ than DDPM, deep than not",
    tuple(
        Comparison((f"{better} ({sde})", "bits/dim"), (f"{worse} ({sde})", "bits/dim"))
        for sde in ("VP", "sub-VP")
        for better, worse in (("DDPM++ cont.", "DDPM cont."), ("DDPM++ cont. deep", "DDPM++ cont."))
    ),
)


def table2(scale: Scale) -> Table:
    cells = []
    for row, (config, bits, distance) in TABLE_2.items():
        cells.append(Cell(row=row, column="bits/dim", config=config, figure=BITS, paper=bits, options=ODE))
        cells.append(Cell(row=row, column="distance", config=config, figure=DISTANCE, paper=distance, options=ODE))
    continuous = Finding(
        "Training at continuous times lowers bits/dim",
        (Comparison(("DDPM cont. (VP)", "bits/dim"), ("DDPM (VP, discrete)", "bits/dim")),),
    )
    return Table(
        title="Table 2: likelihoods, and samples of the probability-flow ODE",
        about="Bits/dim of test images, uniformly dequantized, and distance of samples of the ODE; both adaptive.",
        cells=tuple(cells),
        findings=(SUBVP_BETTER, NETWORK_BETTER, continuous),
    )


# Table 3: samples of each network by its own sampler.

TABLE_3 = {
    "DDPM (VP, discrete)": ("vp/ddpm/cifar10", "3.17", "9.46 ± .11"),
    "DDPM++ (VP, discrete)": ("vp/cifar10_ddpmpp", "2.78", "9.64"),
    "DDPM++ cont. (VP)": ("vp/cifar10_ddpmpp_continuous", "2.55", "9.58"),
    "DDPM++ cont. (sub-VP)": ("subvp/cifar10_ddpmpp_continuous", "2.61", "9.56"),
    "DDPM++ cont. deep (VP)": ("vp/cifar10_ddpmpp_deep_continuous", "2.41", "9.68"),
    "DDPM++ cont. deep (sub-VP)": ("subvp/cifar10_ddpmpp_deep_continuous", "2.41", "9.57"),
    "NCSN++ (VE, discrete)": ("ve/cifar10_ncsnpp", "2.45", "9.73"),
    "NCSN++ cont. (VE)": ("ve/cifar10_ncsnpp_continuous", "2.38", "9.83"),
    "NCSN++ cont. deep (VE)": ("ve/cifar10_ncsnpp_deep_continuous", "2.20", "9.89"),
}


def table3(scale: Scale) -> Table:
    cells = []
    for row, (config, distance, score) in TABLE_3.items():
        cells.append(Cell(row=row, column="distance", config=config, figure=DISTANCE, paper=distance, options=SAMPLES))
        cells.append(Cell(row=row, column="IS", config=config, figure=SCORE, paper=score, options=SAMPLES))

    def better(claim: str, *pairs: tuple[str, str]) -> Finding:
        return Finding(claim, tuple(Comparison((a, "distance"), (b, "distance")) for a, b in pairs))

    return Table(
        title="Table 3: sample quality",
        about="Distance and Inception score of samples by each network's own sampler.",
        cells=tuple(cells),
        findings=(
            better(
                "Deeper networks sample better",
                ("NCSN++ cont. deep (VE)", "NCSN++ cont. (VE)"),
                ("DDPM++ cont. deep (VP)", "DDPM++ cont. (VP)"),
                ("DDPM++ cont. deep (sub-VP)", "DDPM++ cont. (sub-VP)"),
            ),
            better(
                "Continuous times sample better than discrete ones",
                ("NCSN++ cont. (VE)", "NCSN++ (VE, discrete)"),
                ("DDPM++ cont. (VP)", "DDPM++ (VP, discrete)"),
            ),
            better("NCSN++ under VE samples better than DDPM++ under VP", ("NCSN++ cont. (VE)", "DDPM++ cont. (VP)")),
        ),
    )


def nll(scale: Scale) -> Table:
    """All continuous networks: bits/dim of the ODE, and the bound on those of the reverse SDE."""
    of_ve = {row: (TABLE_3[row][0], "", "") for row in ("NCSN++ cont. (VE)", "NCSN++ cont. deep (VE)")}
    networks = TABLE_2 | of_ve
    options = LIKELIHOOD | {"eval.enable_bound": True}
    cells = []
    for row, (config, bits, _) in networks.items():
        cells.append(Cell(row=row, column="bits/dim", config=config, figure=BITS, paper=bits, options=options))
        cells.append(Cell(row=row, column="bound", config=config, figure=BOUND, options=options))
    return Table(
        title="Likelihoods of all networks",
        about="Bits/dim of the probability-flow ODE, uniformly dequantized, and the bound on those of the reverse SDE.",
        cells=tuple(cells),
        findings=(SUBVP_BETTER, NETWORK_BETTER),
    )


# Distance against network evaluations, which no table of the paper has: Sections 4.3 and 5 speak of it.

FAST = {"ddim": 1, "dpmpp_2m": 1, "unipc_3": 1, "heun": 2}  # evaluations a step
BUDGETS = (5, 10, 20, 50)
FRONTIER = {"VP": "vp/cifar10_ddpmpp_continuous", "VE": "ve/cifar10_ncsnpp_continuous"}


def frontier(scale: Scale) -> Table:
    cells = []
    for sde, config in FRONTIER.items():
        for name, each in FAST.items():
            for budget in BUDGETS:
                options = {"sampling.method": name, "sampling.num_steps": max(1, (budget - 1) // each)}
                where = {"row": f"{sde}, {name}", "column": str(budget), "config": config}
                cells.append(Cell(figure=DISTANCE, options=SAMPLES | options, **where))
        for tolerance in (1e-2, 1e-3, 1e-5):
            options = {"sampling.method": "ode", "sampling.rtol": tolerance, "sampling.atol": tolerance}
            where = {"row": f"{sde}, ode", "column": f"{tolerance:g}", "config": config}
            cells.append(Cell(figure=DISTANCE, options=SAMPLES | options, **where))
        paper = {"VP": "2.55", "VE": "2.38"}[sde]
        where = {"row": f"{sde}, the paper's", "column": str(scale.num_scales), "config": config}
        cells.append(Cell(figure=DISTANCE, paper=paper, options=SAMPLES, **where))

    findings = (
        Finding(
            "The probability-flow ODE at tolerance 1e-2 samples no worse than at 1e-5",
            tuple(Comparison((f"{sde}, ode", "0.01"), (f"{sde}, ode", "1e-05")) for sde in FRONTIER),
        ),
        Finding(
            "With at most 10 evaluations a solver of higher order is better than DDIM",
            tuple(
                Comparison((f"{sde}, {name}", "10"), (f"{sde}, ddim", "10"))
                for sde in FRONTIER
                for name in ("dpmpp_2m", "unipc_3")
            ),
        ),
    )
    return Table(
        title="Frontier: distance against network evaluations",
        about="Of one VP and one VE network. Columns are budgets of evaluations, tolerances of the adaptive ODE, or N.",
        cells=tuple(cells),
        findings=findings,
        curve=True,
    )


TABLES = {"table1": table1, "table2": table2, "table3": table3, "nll": nll, "frontier": frontier}
