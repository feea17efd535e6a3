"""Plots from closed forms: errors of samplers against evaluations, and the score of a mixture under two processes."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from score_sde.experiments.gallery.paths import way
from score_sde.experiments.truth_table import problems
from score_sde.experiments.truth_table.orders import STARTS, flow_errors
from score_sde.experiments.truth_table.rows import ROWS

from score_sde.oracles import Gaussian, Mixture
from score_sde.paths import Linear
from score_sde.process import Process
from score_sde.randomness import batch_keys
from score_sde.sampling import Solver, fast_solver
from score_sde.sde import VP

# Colours after Okabe and Ito, which are told apart with any kind of sight; two are darker, for text on white.
BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#3391cc", "#1f2328"
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#59636e",
    "axes.labelcolor": BLACK,
    "text.color": BLACK,
    "xtick.color": BLACK,
    "ytick.color": BLACK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
DPI = 200

SAMPLERS = {
    "euler": (ORANGE, "o"),
    "ddim": (BLACK, "s"),
    "heun": (SKY, "D"),
    "dpmpp_2m": (BLUE, "^"),
    "dpm_solver_3": (PURPLE, "v"),
    "unipc_3": (GREEN, "P"),
}
EVALUATIONS = (12, 24, 48, 96, 192, 384, 768)  # multiples of the evaluations of every sampler's step
FITTED = 4  # points of each line that its slope is fitted to, the last ones
APART = 0.45  # decades between labels, at least


def errors(name: str, evaluations: Sequence[int]) -> list[float]:
    """The distance of a sampler's result from the exact flow of the mixture under VP, at each number of evaluations.

    It is the error of the truth table: the root mean square over 8 fixed starts, in float64.
    """
    process, row = problems.LOW_END["VP"], ROWS[name]
    with jax.enable_x64(True):
        x, model = problems.fixed_starts(process, STARTS), problems.both_models(process)
        exact = [problems.exact_flow(process, data, x, process.sampling_eps) for data in problems.DATA.values()]

        def solver(steps: int) -> Solver:
            return row.make(process, model, steps, noise_removal=False, **row.options)

        of_a_step = solver(8).nfe // 8
        return [flow_errors(process, solver(n // of_a_step), x, exact)[1] for n in evaluations]


def orders(samplers: Mapping[str, tuple[str, str]] = SAMPLERS, evaluations: Sequence[int] = EVALUATIONS) -> Image.Image:
    """The errors of samplers against their evaluations, with the slopes of lines through the last points."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.2, 4.9), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        labels, last = {}, slice(-FITTED, None)
        for name, (colour, marker) in samplers.items():
            error = errors(name, evaluations)
            slope, height = np.polyfit(np.log(evaluations[last]), np.log(error[last]), 1)
            line = np.exp(height + slope * np.log(evaluations[last]))
            axes.loglog(evaluations, error, color=colour, linewidth=0.9, alpha=0.5)
            axes.loglog(evaluations[last], line, color=colour, linewidth=1.8)
            axes.loglog(evaluations, error, marker, color=colour, markersize=7, markeredgecolor="white")
            labels[np.log10(error[-1])] = f"{name}  {-slope:.2f} ({ROWS[name].order})", colour
        below = np.inf
        for height in sorted(labels, reverse=True):
            below, (text, colour) = min(height, below - APART), labels[height]
            axes.annotate(
                text, (evaluations[-1], 10**below), (10, 0), textcoords="offset points", color=colour, va="center"
            )
        axes.set(xlabel="evaluations of the network", ylabel="distance from the exact solution")
        axes.set_xticks(evaluations, [str(n) for n in evaluations])
        axes.minorticks_off()
        axes.grid(color="#d1d9e0", linewidth=0.7)
        axes.set_title("Fitted slopes (and theoretical orders)", loc="left", fontweight="bold")
        return picture(figure)


def _at(x: float, y: float, width: float) -> Gaussian:
    return Gaussian(np.array([x, y]).reshape(1, 1, 2), width**2)


ANGLES = np.pi / 2 + 2 * np.pi * np.arange(5) / 5
MIXTURE = Mixture(np.ones(5), [_at(1.5 * np.cos(a), 1.5 * np.sin(a), 0.18) for a in ANGLES])
PROCESSES: dict[str, Process] = {"Variance-preserving": VP(), "Flow matching (linear)": Linear()}
INSTANTS = (1.0, 0.4, 0.2, 0.02)
EXTENT, CELLS, ARROWS, PATHS = 2.9, 141, 15, 24


def mixture(
    processes: Mapping[str, Process] = PROCESSES, instants: Sequence[float] = INSTANTS, cells: int = CELLS
) -> Image.Image:
    """The density and the score of a mixture at some times under processes, and where its ODE has taken samples."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.2, 2.15 * len(processes) + 0.2), dpi=DPI, layout="constrained")
        rows = np.reshape(figure.subplots(len(processes), len(instants)), (len(processes), len(instants)))
        for panels, (name, process) in zip(rows, processes.items(), strict=True):
            trails = flow(process, instants)
            for i, (axes, t) in enumerate(zip(panels, instants, strict=True)):
                _panel(axes, process, t, cells)
                _trails(axes, trails, t)
                axes.set_title(f"t = {t:g}", fontsize=11)
                if i == 0:
                    axes.set_ylabel(name, fontsize=11)
        return picture(figure)


def flow(process: Process, instants: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Times from 1 down to the last instant, and the points (times, paths, 2) of the ODE's paths from fixed noise."""
    steps, last = 200, min(instants)
    solver = fast_solver(
        process, MIXTURE.model(process), num_steps=steps, grid="uniform", eps=last, noise_removal=False
    )
    keys = batch_keys(jax.random.key(7), PATHS)
    grid = np.linspace(1.0, last, steps + 1)
    x = process.prior_sample(keys, MIXTURE.shape)
    seen = way(lambda _: solver, {}, keys, x, lambda _, made: float(grid[made]), grid[::2])
    return seen.t, seen.x.reshape(len(seen.t), PATHS, 2)


def _panel(axes: Axes, process: Process, t: float, cells: int) -> None:
    """Density of p_t as a shade, and arrows along its score; their length saturates, so that all can be seen."""
    side = np.linspace(-EXTENT, EXTENT, cells)
    density = np.exp(MIXTURE.log_density(process, _plane(side), jnp.full(cells**2, t))).reshape(cells, cells)
    height = np.sqrt(density / density.max())
    axes.contourf(side, side, height, np.linspace(0.06, 1.0, 9), cmap="Blues", vmin=-0.1, vmax=1.4)
    few = np.linspace(-EXTENT, EXTENT, ARROWS + 2)[1:-1]
    arrows = np.asarray(MIXTURE.score(process, _plane(few), jnp.full(ARROWS**2, t))).reshape(-1, 2)
    arrows = arrows * float(process.sigma(np.array([t]))[0])  # minus the predicted noise
    arrows = arrows / (0.3 + np.linalg.norm(arrows, axis=1, keepdims=True))
    places = np.stack(np.meshgrid(few, few), axis=-1).reshape(-1, 2)
    axes.quiver(*places.T, *arrows.T, color="#59636e", scale=22, width=0.006, pivot="mid", alpha=0.8)
    axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set(visible=True, color="#d1d9e0")


def _plane(side: np.ndarray) -> jax.Array:
    """Points of a square lattice as images (n, 1, 1, 2)."""
    return jnp.asarray(np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 1, 1, 2), jnp.float32)


def _trails(axes: Axes, trails: tuple[np.ndarray, np.ndarray], t: float) -> None:
    times, points = trails
    before = times >= t - 1e-9
    for each in points.transpose(1, 0, 2):
        axes.plot(*each[before].T, color=ORANGE, linewidth=0.8, alpha=0.8)
    axes.plot(*points[before][-1].T, "o", color=ORANGE, markersize=3.2, markeredgecolor="white", markeredgewidth=0.5)


def picture(figure: Figure) -> Image.Image:
    """The figure as a picture."""
    file = BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    file.seek(0)
    return Image.open(file).convert("RGB")
