"""What the tests share: quick compilation, a data folder and a configuration of seconds."""

import gc
import importlib
import json
import os

import jaxlib.version
import pytest
from typecheck import install

install("score_sde")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # tests, and a run and its resumption, compile the same
importlib.import_module("score_sde.runtime.backend").prepare_cpu()  # before anything computes

# LLVM's optimisations take longer than what they save on networks this small; so do programs in parts. Subprocesses
# inherit this.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
QUICK += " --xla_cpu_parallel_codegen_split_count=1"
if jaxlib.version.__version__.startswith("0.10."):  # the older emitters take half the time; newer versions have none
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"

gc.set_threshold(100_000)  # tracing makes many objects and little garbage

# Files of half a minute and more, begun first: no worker then runs long after the other.
LONG = ("processes", "end_to_end", "faults", "configs", "conditional", "truth_table", "parallel", "data_sets")
LONG += ("sampling", "controllable", "chaos", "import_checkpoint", "likelihood", "posterior_table", "compare", "sweep")
LONG += ("step", "labels")


# Tests of `make test-long`: whole runs beside which quicker ones of their kind stay in `make test`.
IN_TEST_LONG = (
    "test_denoiser_audit.py::test_the_interval_of_the_ratio_covers_one_in_a_hundred_repetitions",
    "test_audit.py::test_p_values_are_uniform_in_two_thousand_replications",
    "test_audit.py::test_the_power_is_that_of_the_test_itself_on_images_with_planted_copies",
    "test_audit.py::test_the_emoji_hold_groups_of_identical_images",
    "test_experiment_audit.py::test_an_audit_that_is_killed_goes_on_to_the_same_results",
    "test_experiment_audit.py::test_the_balance_of_attributes_is_that_of_a_file",
    "test_privacy.py::test_a_changed_setting_is_a_segment_of_its_own",
    "test_privacy.py::test_eight_devices_make_the_same_run",
    "test_privacy.py::test_the_seed_of_the_noise_is_secret_and_in_no_other_file",
    "test_privacy.py::test_a_run_that_is_stopped_and_goes_on_is_the_undisturbed_run_and_spends_the_same",
    "test_frozen_text.py::test_a_training_takes_features_of_captions_and_its_run_finds_the_encoder_again",
    "test_experiment_text.py::test_a_short_run_judges_captions_and_is_not_repeated",
    "test_scenes.py::test_the_decoder_reads_ten_thousand_fresh_scenes",
    "test_text_training.py::test_an_evaluation_has_losses_and_bits_per_dim_of_a_captioned_split",
    "test_captions.py::test_the_licence_of_the_data_is_kept_with_samples_and_on_pages",
    *(
        f"test_transformers.py::test_networks_have_the_published_numbers_of_parameters[{name}"
        for name in ("u-m", "u-l", "u-h", "d-")
    ),
    *(f"test_chaos.py::test_a_life_is_the_undisturbed_run[{name}" for name in ("uvit", "dit")),
    "test_parallel.py::test_devices_move_no_number_of_a_transformer",
    "test_text_encoder.py::test_an_encoder_computes_as_its_network_does",
    *(
        f"test_cross_attention.py::test_{name}"
        for name in ("eight_devices_change_nothing", "derivatives_agree", "blocks_computed_again_give_the_same")
    ),
    *(
        f"test_cross_attention.py::test_{name}[{network}"
        for network in ("ncsnpp", "ddpm", "uvit")
        for name in (
            "a_network_has_all_parameters_of_the_one_without_cross_attention_and_at_first_its_output",
            "no_caption_is_the_null_caption_to_the_last_bit",
            "padding_changes_no_bit",
            "permuted_rows_give_permuted_outputs",
            "two_tokens_that_change_places_change_the_output",
            "the_size_of_the_batch_changes_nothing",
        )
    ),
    "test_autoregressive.py::test_an_update_in_bfloat16_is_that_in_float32_but_for_its_digits",
    "test_autoregressive.py::test_the_command_trains_measures_and_samples",
    "test_autoregressive.py::test_classes_begin_with_tokens_of_their_own",
    "test_augmentation.py::test_an_update_does_not_depend_on_the_parts_of_a_batch",
    "test_posthoc.py::test_a_run_killed_between_a_checkpoint_and_its_averages_goes_on_with_all_of_them",
    "test_coupling.py::test_a_batch_in_parts_sees_the_same_noise",
    "test_edm2.py::test_every_parameter_gets_a_gradient_but_the_fixed_frequencies_and_phases",
    "test_edm_networks.py::test_edms_published_networks_have_their_numbers_of_parameters[arch3-32-10",
    *(f"test_configs.py::test_edms_configs_are_the_published_training[edm/{name}" for name in "iaf"),
    "test_configs.py::test_edms_configs_are_the_published_training[edm/cifar10_n",
    "test_configs.py::test_edms_configs_are_the_published_training[edm/cifar10_ddpmpp_classes",
    "test_sigma_data.py::test_a_run_measures_its_data_once_and_records_the_number",
    "test_edm2.py::test_the_network_and_its_preconditioning_compute_what_the_published_ones_do[classes",
    "test_edm2.py::test_the_network_and_its_preconditioning_compute_what_the_published_ones_do[no_classes",
    "test_edm2.py::test_the_network_and_its_preconditioning_compute_what_the_published_ones_do[latents",
    "test_edm2.py::test_networks_have_the_published_numbers_of_parameters[64-",
    "test_edm2.py::test_networks_have_the_published_numbers_of_parameters[512-",
    *(
        f"test_transformer_layout.py::test_a_network_computes_what_its_publishers_does_from_the_same_tensors[{name}"
        for name in ("uvit_m", "uvit_l", "uvit_h", "uvit_s2", "dit_xl")
    ),
    *(
        f"test_transformer_layout.py::test_names_and_shapes_of_a_published_file_say_its_network[{name}"
        for name in ("U-ViT-L", "U-ViT-H", "DiT-XL")
    ),
    "test_edm2.py::test_weights_of_the_encoder_are_scale_free_and_activations_stay_at_their_size",
    "test_edm2.py::test_the_forward_derivative_is_the_transpose_of_the_backward_one",
    "test_edm2.py::test_every_weight_row_has_the_norm_of_its_length_at_first_and_after_an_update",
    "test_edm2.py::test_a_fresh_network_gives_zeros_and_learns_its_output_gain_first",
    "test_edm2.py::test_dropout_is_drawn_from_each_images_own_key_and_in_training_only",
    "test_edm2.py::test_the_null_label_is_the_vector_of_zeros_and_no_condition_is_null",
    "test_edm2.py::test_a_run_of_edm2_goes_on_bit_for_bit_and_samples",
    "test_comparisons.py::test_the_recipes_that_differ_are_named_and_the_others_too",
    "test_comparisons.py::test_a_missing_run_leaves_its_recipe_out_of_the_comparisons",
    "test_comparisons.py::test_distances_on_several_features_are_not_compared",
    "test_comparisons.py::test_samplers_make_as_many_evaluations_as_their_column_says",
    "test_comparisons.py::test_every_cell_is_a_run_with_samples_and_bits_of_1000_images",
    "test_comparisons.py::test_edms_samples_are_three_sets_of_50000_by_35_evaluations",
    "test_comparisons.py::test_a_short_",
    "test_published_checkpoints.py::test_networks_of_diffusers_compute_what_diffusers_does[ncsnpp",
    "test_published_checkpoints.py::test_a_folder_of_diffusers_becomes_a_workdir",
    "test_published_checkpoints.py::test_the_one_config_whose_network_fits_is_taken",
    *(f"test_edm_networks.py::test_a_network_of_edms_denoises_as_theirs[{row}" for row in ("edm_d", "edm_n", "edm_s")),
    *(f"test_edm_networks.py::test_a_network_of_edms_denoises_as_theirs[{row}" for row in ("edm_p", "vp", "ve", "id")),
    *(
        f"test_edm_networks.py::test_edms_published_networks_have_their_numbers_of_parameters[arch{i}"
        for i in (1, 2, 4, 5)
    ),
    "test_edm_networks.py::test_the_method_denoise_of_a_network_of_edms",
    "test_edm_networks.py::test_edms_sampler_draws_their_samples_at_published_depth",
    "test_adm.py::test_a_network_computes_what_its_publishers_does_from_the_same_tensors[edm_small_",
    "test_adm.py::test_a_network_computes_what_its_publishers_does_from_the_same_tensors[edm_i",
    "test_adm.py::test_a_network_computes_what_its_publishers_does_from_the_same_tensors[o",
    "test_adm.py::test_a_network_computes_what_its_publishers_does_from_the_same_tensors[f",
    "test_adm.py::test_published_networks_have_their_publishers_number_of_parameters",
    "test_adm.py::test_the_network_starts_as_in_pytorch",
    "test_adm.py::test_names_and_shapes_of_openais_tensors_say_all_flags_but_the_heads_and_the_objective[flags1",
    "test_adm.py::test_names_and_shapes_of_openais_tensors_say_all_flags_but_the_heads_and_the_objective[flags2",
    "test_adm.py::test_a_run_",
    "test_rectangular.py::test_a_network_of_transposed_weights_gives_the_transposed_image[adm",
    "test_transformers_experiment.py::test_a_short_run",
    "test_transformers_experiment.py::test_so_they_have_on_other_images",
    "test_fuzz_mathematics.py::test_valid_arguments_are_valid",
    "test_fuzz_mathematics.py::test_many_arguments_that_do_not_fit_are_refused_in_words",
    "test_rectangular.py::test_a_network_of_transposed_weights_gives_the_transposed_image[ncsn]",
    "test_rectangular.py::test_a_network_of_transposed_weights_gives_the_transposed_image[ncsnv2",
    "test_rectangular.py::test_a_network_of_transposed_weights_gives_the_transposed_image[ddpm]",
    "test_rectangular.py::test_a_network_of_transposed_weights_gives_the_transposed_image[ncsnpp",
    "test_rectangular.py::test_a_network_of_transposed_weights_gives_the_transposed_image[wideresnet",
    "test_rectangular.py::test_bits_per_dim_of_a_rectangle",
    "test_rectangular.py::test_a_run_of_rectangles",
    "test_mistakes.py::test_memory_that_is_used_up_names_the_batch_its_key_and_the_estimate",
    "test_step.py::test_parts_of_a_batch_and_blocks_computed_twice",
    "test_configs.py::test_a_config_shrunk_trains_stops_goes_on_samples_and_evaluates[ve",
    "test_configs.py::test_a_config_shrunk_trains_stops_goes_on_samples_and_evaluates[subvp",
    "test_configs.py::test_a_config_shrunk_trains_stops_goes_on_samples_and_evaluates[vp/ddpm",
    "test_configs.py::test_full_size_networks_have_the_papers_parameters_and_give_an_image[ve/b",
    "test_configs.py::test_full_size_networks_have_the_papers_parameters_and_give_an_image[ve/c",
    "test_configs.py::test_full_size_networks_have_the_papers_parameters_and_give_an_image[ve/n",
    "test_configs.py::test_full_size_networks_have_the_papers_parameters_and_give_an_image[vp/cifar10_ncsnpp",
    "test_configs.py::test_full_size_networks_have_the_papers_parameters_and_give_an_image[vp/cifar10_ddpmpp_deep",
    "test_import_checkpoint.py::test_full_size_layers_are_numbered_as_in_the_papers_pytorch_code[ve",
    "test_import_checkpoint.py::test_full_size_layers_are_numbered_as_in_the_papers_pytorch_code[subvp",
    "test_data_sets.py::test_a_data_set_trains_samples_and_evaluates_by_config_values_alone[cifar10",
    "test_data_sets.py::test_a_data_set_trains_samples_and_evaluates_by_config_values_alone[fashion",
    "test_data_sets.py::test_a_data_set_trains_samples_and_evaluates_by_config_values_alone[edm]",
    "test_data_sets.py::test_a_data_set_trains_samples_and_evaluates_by_config_values_alone[zip]",
    "test_data_sets.py::test_a_data_set_trains_samples_and_evaluates_by_config_values_alone[tar]",
    "test_data_sets.py::test_a_data_set_trains_samples_and_evaluates_by_config_values_alone[json]",
    "test_data_sets.py::test_a_data_set_trains_samples_and_evaluates_by_config_values_alone[webdataset]",
    "test_data_sets.py::test_a_data_set_trains_samples_and_evaluates_by_config_values_alone[pattern]",
    "test_benchmark.py::test_operations_of_the_networks_are_those_counted_by_hand[score_sde.configs.ve",
    "test_end_to_end.py::test_discrete_noise_levels_train_and_sample[ve",
    "test_end_to_end.py::test_a_training_goes_on_the_same_with_64_bit_types",
    "test_end_to_end.py::test_an_images_bits_are_the_same_to_the_last_bit",
    "test_data_sets.py::test_a_run_whose_zip_has_changed_is_not_gone_on_with",
    "test_formats.py::test_the_program_says_how_a_container_was_read",
    "test_folder.py::test_a_folder_of_two_images_trains_from_disk",
    "test_conditional.py::test_classifiers_and_weaker_networks_of_workdirs_guide",
    "test_benchmark.py::test_ours_and_a_peers_are_timed_in_turns",
    "test_chaos.py::test_a_life_is_the_undisturbed_run",
    "test_writer.py::test_wandb_offline_keeps_team_group_and_pictures",
    "test_processes.py::test_two_processes_train_a_dequantizer_evaluate_and_sample_like_one",
    "test_processes.py::test_a_checkpoint_of_four_processes_goes_on_in_one",
    "test_parallel.py::test_devices_and_checkpoints_move_no_number",
    "test_parallel.py::test_a_bound_that_is_missed_is_named",
    "test_parallel.py::test_sharded_parameters_take_a_part_of_the_memory",
    "test_processes.py::test_processes_started_again_give_the_numbers",
    "test_fuzz_models.py::test_many_arguments_that_do_not_fit_are_named",
    "test_loop.py::test_a_classifier_goes_on_to_the_same_bits",
    "test_launch.py::test_a_jobset_starts_a_process_of_one_run_in_each_pod",
    "test_learned.py::test_a_run_learns_its_schedule",
    "test_sweep.py::test_the_real_program_trains_once_for_two_samplers",
    "test_import_checkpoint.py::test_every_family_in_the_pytorch_layout_gives_the_papers_score[ncsnpp",
    "test_import_checkpoint.py::test_every_family_in_the_pytorch_layout_gives_the_papers_score[ddpmpp_subvp",
    "test_documents.py::test_the_code_of_a_page_runs",
    "test_english.py::test_an_example_of_a_docstring_runs[metrics/figures:]",
    "test_exports.py::test_an_evaluation_writes_its_samples_too_and_those_of_another_sampler_replace_them",
    "test_start.py::test_samples_have_the_law_that_the_start_image_implies[ve-",
    "test_start.py::test_samples_have_the_law_that_the_start_image_implies[vp-pc-exponential",
    "test_start.py::test_samples_have_the_law_that_the_start_image_implies[vp-dpmpp_2m-",
    "test_start.py::test_samples_have_the_law_that_the_start_image_implies[vp-adaptive",
    "test_start.py::test_samples_have_the_law_that_the_start_image_implies[vp-ode",
    "test_start.py::test_samples_have_the_law_that_the_start_image_implies[vp-pc-reverse",
    "test_start.py::test_samples_have_the_law_that_the_start_image_implies[vp-pc-]",
    "test_start.py::test_samples_have_the_law_that_the_start_image_implies[vp-ddim",
    "test_start.py::test_a_deterministic_sampler_keeps_its_order_from_any_time[ve",
    "test_start.py::test_a_deterministic_sampler_keeps_its_order_from_any_time[linear",
    "test_site.py::test_no_page_loads_anything_from_a_network",
    "test_site.py::test_every_page_is_reached_from_the_first_and_no_link_within_the_site_is_broken",
    "test_site.py::test_every_public_name_of_the_package_is_in_the_reference",
    "test_wheel.py::test_nothing_of_it_is_importable",
    "test_wheel.py::test_every_config_is_described",
    "test_wheel.py::test_it_trains",
    "test_fuzz_rest.py::test_configs_of_any_values",
    "test_gallery.py::test_the_mixture_is_drawn",
    "test_gallery.py::test_the_errors_of_the_plot",
    "test_wheel.py::test_its_experiments",
    "test_step.py::test_gradients_through_bfloat16_features_are_float32_and_near",
    "test_sweep.py::test_halving_trains_the_best_third_on_and_goes_on_where_they_were",
    "test_slurm.py::test_a_job_that_slurm_refuses_is_said_and_the_rest_goes_on",
    "test_pretrained.py::test_an_adaptive_sampler_is_derived_forwards_and_says_so_backwards",
    "test_posthoc.py::test_evaluations_and_caches_tell_made_averages_apart",
    "test_posthoc.py::test_a_file_that_is_damaged_or_of_other_snapshots_is_not_used",
    "test_posthoc.py::test_the_predicted_errors_are_those_of_another_program",
    "test_notebooks.py::test_a_notebook_runs_without_a_warning_and_draws",
    "test_reflow.py::test_a_student_begins_with_the_averaged_weights_of_its_teacher",
    "test_reflow.py::test_weights_that_do_not_fit_are_refused_before_anything_is_written",
    "test_augmentation_utility.py::test_one_command_writes",
    "test_augmentation_utility.py::test_a_generator_is_trained",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid.partition("/")[2].startswith(IN_TEST_LONG):
            item.add_marker("long")
    files = [f"test_{name}.py" for name in LONG]
    items.sort(key=lambda item: files.index(item.path.name) if item.path.name in files else len(files))


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_users(tmp_path_factory):
    os.environ["SCORE_SDE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("tensorflow_datasets"))


@pytest.fixture
def tiny_config(data_dir):
    """name -> the digits config of that name with a network and a run of seconds."""

    def build(name: str = "vp/digits_ddpmpp_continuous"):
        config = importlib.import_module("score_sde.configs." + name.replace("/", ".")).get_config()
        config.data.data_dir = data_dir
        if config.model.name == "wideresnet":
            config.model.channel_multiplier = 1
        elif "patch_size" in config.model:
            config.model.update(width=8, depth=2, num_heads=2)
        else:
            config.model.update(nf=8, attn_resolutions=(4,))
        if "ch_mult" in config.model and name.startswith("vp"):  # the others keep a down and an up block
            config.model.ch_mult = (1,)
        config.sde.num_scales = 30
        config.training.update(
            batch_size=16, n_iters=4, snapshot_freq=2, snapshot_freq_for_preemption=2, log_freq=1, eval_freq=2
        )
        config.eval.update(batch_size=64, bpd_num_repeats=1, rtol=1e-2, atol=1e-2)
        config.sampling.update(num_samples=8, rtol=1e-2, atol=1e-2)
        config.metrics.features = "none"
        return config

    return build


@pytest.fixture(scope="module")
def one_block():
    """The tests of a file that looks at no network compute with one of a single block in the place of NCSN++."""
    from one_block import OneBlock

    from score_sde.models import MODELS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "ncsnpp", OneBlock)
        yield


# What the training loop alone reads, and no program depends on.
OF_THE_LOOP = ("n_iters", "keep_last", "keep_best", "log_freq", "eval_freq", "snapshot_sampling", "nonfinite")
OF_THE_LOOP += ("snapshot_freq", "snapshot_freq_for_preemption")


@pytest.fixture(scope="module")
def programs() -> dict:
    return {}


@pytest.fixture
def compiled_once(programs, monkeypatch):
    """Trainings of a file that compute the same share their programs; a process each would trace and compile anew."""
    from score_sde.data import OPTIONS
    from score_sde.training import run as training
    from score_sde.training.build import Experiment

    build, step = training.trainable, training.train_step

    def known(config):
        values = config.to_dict()
        for section, keys in (("training", OF_THE_LOOP), ("data", ("dataset", *OPTIONS))):
            values[section] = {key: value for key, value in values[section].items() if key not in keys}
        key = json.dumps({key: values[key] for key in values if key not in ("eval", "metrics")}), Experiment.augment
        if key not in programs:
            experiment = programs[key] = build(config)
            for name in ("init_state", "evaluation"):  # JAX knows functions by identity
                setattr(experiment, name, getattr(experiment, name))
            experiment.train_step = step(experiment)
        programs[key].config = config
        return programs[key]

    monkeypatch.setattr(training, "trainable", known)
    monkeypatch.setattr(training, "train_step", lambda experiment: experiment.train_step)
