"""Generated images with labels: of a model trained here on each seed's real images, of a workdir, or of a file.

| generator            | the images that it has seen                                                       |
|----------------------|-----------------------------------------------------------------------------------|
| trained here         | those of its classifier: as many of each class, of the same seed                  |
| `--workdir`          | the training images of this run, in rows with few real images too                 |
| `--samples`          | unknown                                                                           |
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from score_sde.experiments.augmentation.config import SCHEDULE, get_config
from score_sde.experiments.augmentation.splits import Pool, Splits, samples, subset

from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import draw_samples
from score_sde.inference.pretrained import load
from score_sde.inference.sampling_plan import plan
from score_sde.io import atomic_files, workdir
from score_sde.training.run import train

FILE = "images.npz"  # the images that a generator is trained on
Generator = Callable[[int, int], Pool]  # number of real images of each class, seed -> generated images


def trained_here(folder: Path, splits: Splits, each: int) -> Generator:
    """A generator for each number of images and each seed, trained when it is first asked for."""
    made: dict[tuple[int, int], Pool] = {}

    def of(count: int, seed: int) -> Pool:
        if (count, seed) not in made:
            directory = folder / "generators" / f"{count or 'all'}_{seed}"
            _keep(directory / FILE, subset(splits.train, splits.names, count, seed), splits.validation)
            config = get_config()
            values = SCHEDULE | {"data.dataset": "array", "data.path": str(directory / FILE), "seed": seed}
            config.update_from_flattened_dict(values)
            train(config, directory, overrides=values)
            file = drawn(directory, directory, each, len(splits.names))
            made[count, seed] = samples(file, each, splits.train, splits.names)
        return made[count, seed]

    return of


def of_file(path: Path, splits: Splits, each: int) -> Generator:
    """The samples of a file, which are those of every seed."""
    pool = samples(path, each, splits.train, splits.names)
    return lambda count, seed: pool


def drawn(run: Path, folder: Path, each: int, classes: int) -> Path:
    """The file of `each` samples of each class by a run, with their labels, as `sampling.save=arr_0` writes it.

    folder: of the file. classes: their number. Raises `UsageError` for a run that has no classes.
    """
    config = workdir.stored_config(run)
    config.sampling.update(condition="class=all", num_samples=each * classes, save=("arr_0",))
    model = load(run, config=config)
    if not plan(model).conditional.num_classes:
        raise UsageError(
            f"The model in {run} is unconditional, and a classifier needs samples of classes; name a run with "
            "model.num_classes, or give --samples=FILE."
        )
    (path,) = draw_samples(model, config.sampling.num_samples, folder, "samples")["saved"]
    return Path(path)


def _keep(path: Path, train_set: Pool, validation: Pool) -> None:
    """Writes the images of a generator as `data.dataset=array` reads them, unless they are there."""
    arrays = {"x_train": train_set.images, "y_train": train_set.labels}
    arrays |= {"x_test": validation.images, "y_test": validation.labels}
    stored = atomic_files.read_arrays(path)
    same = stored is not None and all(np.array_equal(stored.get(name), array) for name, array in arrays.items())
    if not same:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.replace(path, lambda file: np.savez(file, **arrays), "--folder")
