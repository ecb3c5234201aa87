"""Tasks whose rows each training step makes anew, by name."""

from farcontext.tasks import flip_flop, recall

# A generator's keywords are its task's options.
MADE = {
    "dense_recall": recall.dense_recall,
    "recall": recall.recall,
    "flip_flop": flip_flop.flip_flop,
}
# A task has so many ids; an encoder's mask is one more.
VOCABULARY = {
    "dense_recall": recall.VOCABULARY,
    "recall": recall.VOCABULARY,
    "flip_flop": flip_flop.VOCABULARY,
}
