"""The config of a workdir that an older version wrote, without the keys that were added since."""

# Keys that some workdir was written before, and what it means where that is not today's default.
ADDED = {
    "data": "path archives in_memory_gib num_workers held_out corrupt convert labels captions "
    "augment_p augment_transforms sigma_images scene_objects scene_relations scene_held_out scene_images scene_seed",
    "text": "tokenizer max_tokens truncate vocab_size frozen",
    "training": "precision accumulate remat fsdp keep_last keep_best nonfinite label_dropout cond_dropout "
    "coupling coupling_block pairs start_from privacy",
    "privacy": "epsilon delta noise_multiplier clip times capacity secret_seed",
    "sampling": "precision batch_size temperature clip clip_quantile diffusion ode_method sde_rtol sde_atol num_steps "
    "grid rho eta s_churn s_min s_max s_noise condition ema start start_time save same_noise",
    "guidance": "scale interval negative classifier weak weak_step inverse noise samples_each step iterations "
    "particles",
    "eval": "precision dequantization num_probes enable_bound bound_num_times ode_method max_images",
    "optim": "ema_schedule beta2 warmup_images decay_after nan_gradients",
    "ema": "profiles snapshot_freq",
    "process": "name beta_min beta_max sigma_min sigma_max s noise_min noise_max pieces num_scales",
    "parameterization": "name noise_cond time_scale sigma_data",
    "times": "name eps P_mean P_std mean std",
    "weight": "name reduction sigma_data gamma base features",
    "metrics": "features weights statistics dir split batch_size inception_splits nf dimension n_iters lr seed",
    "model": "num_classes",
    "wandb": "entity group",
}
OTHERWISE = {"sampling.clip": "none", "optim.ema_schedule": "constant", "model.num_classes": 0, "data.captions": "none"}


def older(stored: dict) -> dict:
    """The config of a workdir that was written before all of `ADDED`."""

    def kept(section: str, values: dict) -> dict:
        return {key: value for key, value in values.items() if key not in ADDED.get(section, "").split()}

    whole = {name: kept(name, value) if isinstance(value, dict) else value for name, value in stored.items()}
    return {name: value for name, value in whole.items() if name != "profile" and value != {}}
