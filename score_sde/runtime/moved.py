"""Old names of modules: an import of one is answered with the new name. Imports nothing."""

import sys

MOVED = {
    "backend": "runtime.backend",
    "preemption": "runtime.preemption",
    "parallel": "runtime.sharding",
    "processes": "runtime.multihost",
    "memory": "runtime.memory",
    "profiling": "runtime.profiling",
    "progress": "runtime.progress",
    "import_paths": "config.import_paths",
    "protocols": "config.protocols",
    "digest": "io.digest",
    "files": "io.atomic_files",
    "downloads": "io.downloads",
    "pytorch_files": "io.pytorch_files",
    "rounds": "io.result_cache",
    "writer": "io.metrics_log",
    "page": "io.html_page",
    "checkpoints": "io.checkpoints",
    "workdir": "io.workdir",
    "likelihood_bound": "likelihood.bound",
    "dequantization": "likelihood.dequantization",
    "state": "training.state",
    "divergence": "training.nan_guard",
    "loop": "training.loop",
    "pieces": "training.pieces",
    "recipe": "training.recipe",
    "trainable": "training.trainable",
    "classification": "training.classification",
    "build": "training.build",
    "own_code": "training.own_code",
    "source_checks": "training.source_checks",
    "averages": "training.averages",
    "training.train": "training.run",
    "training.train_step": "training.run",
    "training.load_data": "training.run",
    "controllable": "conditioning",
    "reference_checkpoints": "inference.reference_checkpoints",
    "snapshots": "inference.snapshots",
    "conditional": "inference.conditional_samplers",
    "sampling_plan": "inference.sampling_plan",
    "pretrained": "inference.pretrained",
    "train_dequantizer": "inference.train_dequantizer",
    "measures": "evaluation.sample_metrics",
    "identities": "evaluation.identities",
    "report": "evaluation.report",
    "reconstruct": "evaluation.inverse_problems",
    "evaluate": "evaluation.evaluate",
    "command_line": "cli.command_line",
    "describe": "cli.describe",
    "main": "cli.main",
    "import_checkpoint": "cli.import_checkpoint",
    "statistics": "cli.dataset_statistics",
    "data.__main__": "cli.inspect_data",
    "data.taken": "data.split_report",
    # of releases before
    "train": "training.run",
    "trained": "inference.pretrained",
    "loaded": "inference.snapshots",
    "Trained": "inference.pretrained.Pretrained",
    "TrainedClassifier": "inference.snapshots.PretrainedClassifier",
    "Loaded": "inference.snapshots.Snapshot",
}
PROGRAMS = {"import_checkpoint": "import", "statistics": "statistics", "data.__main__": "data"}  # modes now


class Finder:
    """A finder of `sys.meta_path`. It stands first, since caches that are left of an old folder would be a package."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Raises `ImportError` for an old name, and finds nothing."""
        package, _, old = name.partition(".")
        if package == "score_sde" and old in MOVED:
            raise ImportError(answer(old), name=name)


def answer(old):
    """The sentence for a name under `score_sde` that has moved."""
    mode = f", and score_sde --mode={PROGRAMS[old]} runs it" if old in PROGRAMS else ""
    return f"score_sde.{old.removesuffix('.__main__')} is now score_sde.{MOVED[old]}{mode}."


def register():
    """Answers old names from here on."""
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)
