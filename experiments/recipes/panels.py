"""A panel for each figure of a comparison: every seed as a dot, and the mean with its 95 % interval."""

from collections.abc import Callable, Mapping, Sequence

from score_sde.experiments.sweep import results

from score_sde.io import html_page

Figures = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]  # figure -> what is compared -> "values" of seeds


def drawing(figures: Figures, name: Callable[[str], str], log: Callable[[str], bool]) -> html_page.Element:
    """The drawing. name: the words for what is compared. log: whether a figure's axis is logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    figures = {figure: of for figure, of in figures.items() if of}
    compared = list(dict.fromkeys(each for of_figure in figures.values() for each in of_figure))[::-1]
    drawn, axes = plt.subplots(
        1, len(figures), figsize=(2.6 * len(figures) + 1, 3.2), layout="constrained", sharey=True, squeeze=False
    )
    for panel, (figure, of_figure) in zip(axes[0], figures.items(), strict=True):
        for each, row in of_figure.items():
            y, values = compared.index(each), row["values"]
            mean = results.over_seeds([{"mean": value, "standard_error": None} for value in values])
            panel.errorbar(
                mean.mean, y, xerr=mean.half, color=html_page.COLOURS[0], marker="|", capsize=3, markersize=9
            )
            panel.plot(values, [y] * len(values), "o", color=html_page.COLOURS[1], markersize=3.5, linestyle="")
        if log(figure):
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_title(figure, fontsize=9)
        panel.set_yticks(range(len(compared)), [name(each) for each in compared], fontsize=9)
        panel.tick_params(axis="x", labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color=html_page.LINE, linewidth=0.6)
        panel.set_axisbelow(True)
    return html_page.svg(drawn, f"Figures of {', '.join(name(each) for each in compared[::-1])}")
