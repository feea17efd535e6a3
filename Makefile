# `make install` sets up .venv/; `make demo`, `make test` and `make test-long` do so first.

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
BIN := .venv/bin
NEXT := .venv-next/bin
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

# Each use of JAX, Flax and Orbax once: networks traced, and computing; updates, runs and checkpoints; each sampler;
# likelihoods; conditions; dequantization; features; privacy; audits; eight devices; traces, and what a compiled program says.
NEXT_TESTS := $(addprefix tests/, \
  test_layout.py::test_every_module_can_be_imported test_imports.py test_checkpoints.py test_state.py test_inception.py \
  test_configs.py::test_a_config_shrunk_trains_stops_goes_on_samples_and_evaluates[vp/cifar10_ddpmpp_continuous] \
  test_fast.py::test_every_sampler_reports_the_evaluations_that_the_score_counts \
  test_likelihood.py::test_bits_per_dim_equal_the_closed_form test_parameterization.py \
  test_flow.py::test_every_sampler_runs_from_time_one[linear-ode] \
  test_flow.py::test_every_sampler_runs_from_time_one[cosine-unipc_2] \
  test_cond.py::test_a_null_condition_is_the_unconditional_network_to_the_last_bit \
  test_likelihood_bound.py::test_the_exact_score_makes_the_bound_an_equality \
  test_dequantization.py::test_training_variational_dequantization_lowers_bits_per_dim \
  test_conditional.py::test_known_pixels_of_a_network_are_exact_and_grey_values_stay \
  test_conditional.py::test_particles_are_drawn_by_the_predictor_alone \
  test_parallel.py::test_an_update_equals_that_of_jax_pmap_on_eight_devices \
  test_parallel.py::test_a_loaded_model_takes_batches_that_eight_devices_do_not_divide \
  test_phases.py::test_a_profile_is_a_trace_that_opens_in_a_browser \
  test_composition.py::test_a_models_score_and_a_classifiers_logits_are_parts_of_any_program \
  test_pretrained.py::test_an_adaptive_sampler_is_derived_forwards_and_says_so_backwards \
  test_processes.py::test_a_mistake_is_said_once_by_all \
  test_benchmark.py::test_ours_and_a_peers_are_timed_in_turns test_compaction.py \
  test_autoregressive.py::test_logits_by_the_cache_are_those_without_it \
  test_text_sampling.py::test_samples_of_one_noise_differ_by_their_captions_alone test_bayes_classifier.py \
  test_privacy.py::test_without_noise_and_clipping_it_is_the_ordinary_update \
  test_privacy.py::test_a_training_ends_before_its_budget_is_exceeded test_denoiser_audit.py test_membership.py test_card.py \
  $(addprefix test_configs.py::test_an_update_the_sampler_and_the_evaluation_of_a_config_can_be_traced, \
    [ve/cifar10_ddpm] [ve/ncsnv2/bedroom] [ve/ffhq_ncsnpp_continuous] [vp/cifar10_ddpmpp] [vp/ddpm/cifar10_continuous]) \
  $(addprefix test_parity.py::test_a_network_computes_what_the_papers_does, [ncsn] [ncsnv2_64] [ddpm_vp] [ncsnpp_cat] [wideresnet]))

# The first Python >= 3.11; and the first >= 3.12 if there is one, on which the tests run with the newest JAX as well.
CANDIDATES := python3.11 python3 python3.12 python3.13 python3.14 $(wildcard $(HOME)/.pyenv/versions/3.1[2-4]*/bin/python3)
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
NEXT_PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)

.PHONY: install demo test test-long test-pins test-next lint format docs clean

install: .venv/installed

demo: .venv/installed
	$(BIN)/python -m experiments.digits

test: lint test-pins $(if $(NEXT_PYTHON),test-next)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

test-pins: .venv/installed
	$(BIN)/python -m pytest $(WORKERS) -m "not long"

test-long: .venv/installed
	$(BIN)/python -m pytest $(WORKERS) -m long

test-next: .venv-next/installed
	$(NEXT)/python -m pytest $(WORKERS) $(NEXT_TESTS)

docs: .venv/installed
	$(BIN)/sphinx-build -E -W --keep-going -n -q -c docs -d .cache/doctrees . .cache/site
	@echo "The site is .cache/site/index.html"

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "score_sde needs Python 3.11 or newer on the PATH."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv-next/installed: pyproject.toml
	$(NEXT_PYTHON) -m venv .venv-next
	$(NEXT)/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[test]'
	touch $@

clean:
	rm -rf .venv .venv-next .cache *.egg-info
