"""Names of splits, as folders and files have them, in any case."""

TRAINING, TEST, VALIDATION = "training", "test", "validation"
SPLITS = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), VALIDATION),
}
