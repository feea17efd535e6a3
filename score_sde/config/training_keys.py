"""Keys of a training: the run itself, `training`, `privacy`, `data`, `text`, `optim` and `ema`."""

from score_sde.config.keys import SEEDS, Differs, Key

ALLOWED, LAUNCH, MACHINE = Differs.ALLOWED, Differs.LAUNCH, Differs.MACHINE

RUN = {
    "seed": Key(42, "Seed of every random number of the run", SEEDS),
    "profile": Key(0, "Updates that are traced, to profile/ in the workdir", "[0, inf)", LAUNCH, moves_numbers=False),
}

TRAINING = {
    "batch_size": Key(128, "Images in an update, over all devices", "[1, inf)", ALLOWED),
    "n_iters": Key(1_300_001, "Updates that the training ends after", "[1, inf)", LAUNCH),
    "snapshot_freq": Key(50_000, "Updates between checkpoints that are kept for ever", "[1, inf)", LAUNCH),
    "snapshot_freq_for_preemption": Key(
        10_000, "Updates between checkpoints to resume from, of which the last `keep_last` are kept", "[1, inf)", LAUNCH
    ),
    "keep_last": Key(2, "Checkpoints to resume from that are kept", "[1, inf)", LAUNCH),
    "keep_best": Key(0, "Checkpoints with the least evaluation loss that are kept as well", "[0, inf)", LAUNCH),
    "nonfinite": Key(
        "stop",
        "Answer to a loss or gradient that is not finite: stop the training, or skip the update",
        ("stop", "skip"),
        LAUNCH,
    ),
    "log_freq": Key(50, "Updates between lines of metrics.jsonl", "[1, inf)", LAUNCH),
    "eval_freq": Key(100, "Updates between losses of an evaluation batch", "[1, inf)", LAUNCH),
    "snapshot_sampling": Key(
        True, "Whether a batch of samples is drawn at each snapshot and at the end", differs=LAUNCH
    ),
    "precision": Key(
        "tf32",
        "Precision of the network's computation in training (score_sde/models/compute.py)",
        "score_sde.models:PRECISIONS",
        ALLOWED,
    ),
    "accumulate": Key(
        1, "Parts that a batch is computed in, one after the other", "[1, inf)", LAUNCH, moves_numbers=False
    ),
    "remat": Key(
        False,
        "Whether each block is computed again in the backward pass, which saves memory; not on a CPU",
        differs=LAUNCH,
        moves_numbers=False,
    ),
    "fsdp": Key(
        1,
        "Devices of a group that shares one copy of the parameters, of their average and of Adam's moments",
        "[1, inf)",
        MACHINE,
        moves_numbers=False,
    ),
    "continuous": Key(
        True,
        "Whether times are continuous, or those of a chain as in SMLD and DDPM",
        formerly=("training.continuouse",),
    ),
    "likelihood_weighting": Key(False, "Whether the loss is weighted by g^2, which bounds the likelihood"),
    "reduce_mean": Key(False, "Whether the loss is the mean over an image's numbers, or else half of their sum"),
    "coupling": Key(
        "independent",
        "Noise that an image is joined with: its own, the nearest within a block, or that of a teacher's pair",
        "score_sde.training.coupling:COUPLINGS",
    ),
    "coupling_block": Key(128, "Consecutive rows of a batch whose noise coupling=optimal permutes", "[1, inf)"),
    "pairs": Key(
        "", "Folder of the teacher's pairs, from --mode=pairs, for coupling=pairs", differs=MACHINE, moves_numbers=False
    ),
    "start_from": Key(
        "", "Workdir of a run whose averaged weights the training begins with; empty: fresh ones", differs=LAUNCH
    ),
    "privacy": Key(
        False, "Whether the training is differentially private, with the settings of section privacy", newer=True
    ),
    "label_dropout": Key(
        0.1,
        "Probability that an image's condition (class, tokens, ...) is dropped in training; 0: never",
        "[0, 1)",
        ALLOWED,
    ),
    "cond_dropout": Key(
        (),
        "Entries of the condition that are each dropped with that probability; (): the whole at once",
        differs=ALLOWED,
        kind=tuple[str, ...],
    ),
}

PRIVACY = {
    "epsilon": Key(10.0, "Epsilon that no update may exceed: the training ends before", "(0, inf)", newer=True),
    "delta": Key(1e-5, "Delta of the guarantee; below one over the number of training images", "(0, 1)", newer=True),
    "noise_multiplier": Key(
        1.0, "Standard deviation of the noise on the sum of gradients, over privacy.clip", "(0, inf)", newer=True
    ),
    "clip": Key(1.0, "Norm to which the gradient of each image is clipped", "(0, inf)", newer=True),
    "times": Key(8, "Noise levels at which an image's loss is averaged in an update", "[1, inf)", newer=True),
    "capacity": Key(
        0,
        "Most images in an update, of which training.batch_size are expected; 0: so many that what is left out costs "
        "a thousandth of privacy.delta",
        "[0, 1e9]",
        newer=True,
    ),
    "secret_seed": Key(
        None,
        "Seed of the batches and the noise, for studies: a guarantee needs a secret one; None: one is drawn at the "
        "start of the run and kept in its privacy_seed.json",
        SEEDS,
        Differs.NEVER,
        kind=int,
        newer=True,
    ),
}

DATA = {
    "dataset": Key(
        "cifar10",
        "Data set, by its name in this package or in TFDS; folder and array are images of the user's own",
        "score_sde.data:DATASETS",
        ALLOWED,
        any_case=True,
        others=True,
        takes_path=True,
    ),
    "path": Key(
        "",
        "Where the user's own images are: for folder a directory, a .zip, .tar or .parquet file, or a pattern of such "
        "files as shards-{000..010}.tar; for array a .npz or .npy file",
        differs=MACHINE,
    ),
    "data_dir": Key(
        "",
        "Folder of prepared data sets; empty: the environment's TFDS_DATA_DIR, else ~/tensorflow_datasets",
        differs=MACHINE,
        moves_numbers=False,
    ),
    "archives": Key(
        "",
        "Folder of files to prepare a data set from; empty: downloads/manual in data_dir",
        differs=MACHINE,
        moves_numbers=False,
    ),
    "in_memory_gib": Key(
        8.0,
        "GiB of pixels up to which a split is read into memory; a larger one is decoded as it is needed",
        "[0, inf)",
        MACHINE,
        moves_numbers=False,
    ),
    "num_workers": Key(0, "Threads that decode images; 0: one for each core", "[0, inf)", MACHINE, moves_numbers=False),
    "held_out": Key(
        0.1,
        "Fraction of the images to evaluate on, where there is no split for that; 0: all are trained on",
        "[0, 1)",
        ALLOWED,
    ),
    "corrupt": Key("refuse", "Treatment of images that cannot be read", "score_sde.data.loading:CORRUPT", MACHINE),
    "convert": Key(
        False,
        "Whether images of other colours, with transparency or of 16 bits are converted, or refused",
        differs=ALLOWED,
    ),
    "labels": Key("auto", "Source of the labels of the user's own images", "score_sde.data.folder:LABELS", LAUNCH),
    "captions": Key(
        "auto",
        "Whether captions that are stored with the user's own images are read",
        "score_sde.data.caption_files:CAPTIONS",
        MACHINE,
        older="none",
        inherited=True,
    ),
    "array_range": Key(
        None,
        "Numbers that are black and white in an array that is not uint8, as -1,1; None: it is uint8",
        differs=MACHINE,
        kind=tuple[float, ...],
    ),
    "scene_objects": Key(3, "Most objects of a scene", "[1, 3]", ALLOWED, newer=True),
    "scene_relations": Key(
        True, "Whether half of the captions of scenes with several objects say how two lie", differs=ALLOWED, newer=True
    ),
    "scene_held_out": Key(
        ("red circle", "blue star", "green square", "white cross"),
        "Pairs of shape, colour and size that scenes of the training split never have, and the second half of the "
        "evaluation split has; (): none",
        differs=ALLOWED,
        kind=tuple[str, ...],
        newer=True,
    ),
    "scene_images": Key(
        50_000,
        "Scenes of the training split; each half of the evaluation split has a tenth",
        "[10, 4294967296)",
        ALLOWED,
        newer=True,
    ),
    "scene_seed": Key(0, "Seed of the scenes; another one gives other scenes", "[0, 4294967296)", ALLOWED, newer=True),
    "image_size": Key(32, "Height of the images in pixels, and without data.image_width also their width", "[1, inf)"),
    "image_width": Key(
        None, "Width of images that are not square; None: data.image_size", "[1, inf)", kind=int, newer=True
    ),
    "num_channels": Key(3, "Channels of the images: 1 is grey, 3 is RGB", "[1, inf)"),
    "centered": Key(False, "Whether the model's range is [-1, 1], or else [0, 1]"),
    "random_flip": Key(True, "Whether images are mirrored at random in training", differs=ALLOWED),
    "augment_p": Key(
        0.0,
        "Probability of each transform of EDM's augmentation pipe, whose labels the network is told; 0: no pipe. "
        "EDM has 0.12 for CIFAR-10 and 0.15 for FFHQ and AFHQ",
        "[0, 1]",
        ALLOWED,
        newer=True,
    ),
    "augment_transforms": Key(
        ("xflip", "yflip", "scale", "rotate", "aniso", "translate"),
        "Transforms of that pipe; xflip is drawn for every image, with a probability of 1/2",
        "score_sde.training.augmentation:TRANSFORMS",
        ALLOWED,
        kind=tuple[str, ...],
        newer=True,
    ),
    "sigma_images": Key(
        0,
        "Training images, at most, whose standard deviation becomes the sigma_data of parameterization and weight that "
        "is not set, measured at the start of a run and recorded; 0: none",
        "[0, inf)",
        LAUNCH,
    ),
    "uniform_dequantization": Key(
        False, "Whether uniform noise of one level is added in training; bits/dim are always dequantized"
    ),
}

TEXT = {
    "tokenizer": Key(
        "",
        "Tokens that captions become entries of the condition as: bytes of UTF-8, or words learned from the training "
        "captions with bytes for others; empty: captions are not used",
        "score_sde.data.tokenizers:TOKENIZERS",
        newer=True,
    ),
    "max_tokens": Key(32, "Tokens to which every caption is padded, its end among them", "[1, 65536]", newer=True),
    "truncate": Key(False, "Whether captions of more tokens are cut, or refused", newer=True),
    "vocab_size": Key(
        1024,
        "Tokens of tokenizer=words: 257 of bytes and the end, the others of the most frequent words",
        "[257, 10000000]",
        newer=True,
    ),
    "frozen": Key(
        "",
        "Folder with model.safetensors, tokenizer.json and config.json of a published encoder, by whose features "
        "captions become an entry of the condition; empty: none",
        differs=MACHINE,
        moves_numbers=False,
        newer=True,
    ),
}

OPTIM = {
    "optimizer": Key("Adam", "Optimizer of the network's parameters", ("Adam",)),
    "lr": Key(2e-4, "Learning rate after the warmup", "(0, inf)", ALLOWED),
    "beta1": Key(0.9, "Decay of Adam's first moment", "[0, 1)", ALLOWED),
    "beta2": Key(0.999, "Decay of Adam's second moment", "[0, 1)", ALLOWED, newer=True),
    "eps": Key(1e-8, "Epsilon in Adam's denominator, which float32 must hold", "[1e-30, inf)", ALLOWED),
    "weight_decay": Key(0.0, "Weight decay of AdamW, apart from the gradient", "[0, inf)", ALLOWED),
    "warmup": Key(5000, "Updates in which the learning rate rises from 0; 0: none", "[0, inf)", ALLOWED),
    "warmup_images": Key(
        0,
        "Images in which the learning rate rises from 0, whatever the batch size; 0: the updates of optim.warmup",
        "[0, inf)",
        ALLOWED,
        newer=True,
        replaces=("optim.warmup",),
    ),
    "decay_after": Key(
        0,
        "Updates T after which update t + 1 has the rate lr sqrt(T / t); 0: a constant rate",
        "[0, inf)",
        ALLOWED,
        newer=True,
    ),
    "nan_gradients": Key(
        "nonfinite",
        "Answer to gradients that are not finite: nonfinite is that of training.nonfinite, replace takes 0 for NaN and "
        "1e5 for infinity, zero takes 0 for both; a loss that is not finite is always left to training.nonfinite",
        "score_sde.training.state:NAN_GRADIENTS",
        ALLOWED,
        newer=True,
    ),
    "grad_clip": Key(1.0, "Norm to which gradients are clipped, not 0; negative: no clipping", "(-inf, inf)", ALLOWED),
    "ema_rate": Key(
        0.999, "Rate of the moving average of the parameters; 0: no averaging", "[0, 1)", formerly=("model.ema_rate",)
    ),
    "ema_schedule": Key(
        "ramp",
        "Course of the average's rate: at update n it is min(ema_rate, (1 + n) / (10 + n)), or constant",
        "score_sde.ema:SHORTHAND",
        older="constant",
        inherited=True,
    ),
}

EMA = {
    "profiles": Key(
        (),
        "Averages to keep: constant:RATE, ramp:RATE, half_life:UPDATES[,RAMP] or power:SIGMA_REL "
        "(score_sde.ema); (): the one of optim.ema_rate and ema_schedule",
        kind=tuple[str, ...],
        replaces=("optim.ema_rate", "optim.ema_schedule"),
    ),
    "snapshot_freq": Key(
        0,
        "Updates between snapshots of the power averages, from which `--mode=ema` makes others; 0: none",
        "[0, inf)",
        LAUNCH,
    ),
}
