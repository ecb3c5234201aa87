"""What notebook 05 says of a table, in words and small tables."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from farcontext import files
from farcontext.data.tokenizer import load_tokenizer
from farcontext.measure.stats import t_interval
from farcontext.studies.mlm_pretraining.figures import LEARNERS, TASKS
from farcontext.studies.mlm_pretraining.labels import CLASSES
from farcontext.studies.mlm_pretraining.study import DOMAINS
from farcontext.train.keys import tokens_folder

NOTHING = "not published yet in this form"


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean accuracy over seeds: task and learner by number of labels."""
    rows = table[table["metric"] == "accuracy"]
    named = rows.replace({"task": TASKS, "arm": LEARNERS})
    return named.pivot_table(index=["task", "arm"], columns="labels", values="value")


def gained(table: pd.DataFrame, rival: str) -> pd.DataFrame:
    """Return pretrained − rival in points, with 95 % intervals.

    They are paired by seed.

    A row is a task, a column a number of labels.
    """
    rows = table[table["metric"] == "accuracy"]
    keys = ["task", "labels", "seed"]
    values = rows.pivot_table(index=keys, columns="arm", values="value")
    if values.empty:
        return pd.DataFrame()
    points = 100 * (values["pretrained"] - values[rival])
    shown = points.groupby(["task", "labels"]).agg(lambda x: interval_text(list(x), 0))
    return shown.unstack().rename(index=TASKS)


def interval_text(values: list[float], digits: int) -> str:
    """Return a mean with its 95 % interval; one value stands alone."""
    found = t_interval(values)
    if not found.known:
        return f"{np.mean(values):+.{digits}f}"
    return f"{found.estimate:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def saved_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many labels each learner needs.

    The goal is what the untrained encoder has with most labels.

    Mean curves, joined by straight lines on log₂ labels. An arm that never gets there has ∞; one
    that is there with the fewest needs at most these.
    """
    mean = table[table["metric"] == "accuracy"].pivot_table(
        index="labels", columns=["task", "arm"], values="value"
    )
    found: dict[str, dict[str, float]] = {}
    for task in dict.fromkeys(mean.columns.get_level_values("task")):
        goal = mean[task]["scratch"].iloc[-1]
        needed = {LEARNERS[arm]: first_level(mean[task][arm], goal) for arm in LEARNERS}
        found[TASKS[task]] = needed
    return pd.DataFrame(found).T


def first_level(curve: pd.Series, goal: float) -> float:
    """Return the level at which a curve first reaches a goal.

    The axis is log₂.
    """
    levels, values = np.log2(curve.index.to_numpy(float)), curve.to_numpy()
    over = np.flatnonzero(values >= goal)
    if not over.size:
        return math.inf
    i = int(over[0])
    if i == 0:
        return float(2 ** levels[0])
    share = (goal - values[i - 1]) / (values[i] - values[i - 1])
    return round(float(2 ** (levels[i - 1] + share * (levels[i] - levels[i - 1]))))


def answers(table: pd.DataFrame, least: float = 0.01) -> list[str]:
    """Return the page's answers as sentences, from a table's numbers.

    Args:
        table: the study's rows.
        least: the gain below which a longer window counts as nothing, nats a token.
    """
    if "labels" not in table or not (table["metric"] == "accuracy").any():
        return [NOTHING]
    labels = 32
    own = gained(table, "scratch")[labels]
    rival = gained(table, "tf_idf")[labels]
    said = [
        f"{task}: with {labels} labels, pretrained − untrained {own[task]} points, "
        f"pretrained − TF-IDF {rival[task]} points."
        for task in own.index
    ]
    gains = table[(table["metric"] == "final_gain_over_ngrams") & (table["sees"] == "both")]
    for read, rows in gains.groupby("read", sort=False):
        each = rows.groupby("domain")["value"].agg(lambda x: interval_text(list(x), 2))
        told = ", ".join(f"{domain} {value}" for domain, value in each.items())
        said.append(f"Best n-gram of {read} (both sides) − encoder, nats a byte: {told}.")
    return [best_learners(table, labels), *said, window_sentence(table, least)]


def best_learners(table: pd.DataFrame, labels: int) -> str:
    """Return which learner to take for each task, by mean accuracy."""
    mean = accuracy(table)[labels].unstack("arm")
    told = (
        f"{task} {one} ({mean.loc[task, one]:.2f})" for task, one in mean.idxmax(axis=1).items()
    )
    return f"With {labels} labels take: {'; '.join(told)}. A guess has {1 / CLASSES:.2f}."


def window_sentence(table: pd.DataFrame, least: float) -> str:
    """Return up to which width a longer window pays."""
    rows = table[(table["metric"] == "context_cost") & (table["far"] == "truncated")]
    rows = rows[rows["arm"] == "decoder"]
    mean = rows.groupby("context")["value"].mean()
    told = ", ".join(f"{value:+.3f} at {context:.0f}" for context, value in mean.items())
    beyond = mean[mean >= least]
    end = f"up to {beyond.index[-1]:.0f} tokens" if len(beyond) else "at no tested width"
    return f"Cutting off all but the last w tokens costs {told}; {least} nat or more {end}."


def gains_by_domain(table: pd.DataFrame) -> pd.DataFrame:
    """Return best n-gram − encoder, nats a byte, with intervals.

    They are 95 % intervals over seeds.

    A row is what the n-grams have read and see, a column a text.
    """
    rows = table[table["metric"] == "final_gain_over_ngrams"]
    if rows.empty:
        return pd.DataFrame()
    each = rows.groupby(["read", "sees", "domain"])["value"]
    return each.agg(lambda x: interval_text(list(x), 2)).unstack()


def blanks(table: pd.DataFrame) -> pd.DataFrame:
    """Return how well blanks are filled, by text."""
    rows = table[table["metric"].isin(["blank_right", "blank_p"])]
    names = {"blank_right": "filled right", "blank_p": "p of the word"}
    shown = rows.replace({"metric": names}).pivot_table(
        index="domain", columns=["metric", "arm"], values="value"
    )
    return shown.round(3)


def words_of(tokens: Sequence[int]) -> list[str]:
    """Return each token's own text."""
    tokenizer = load_tokenizer(tokens_folder())
    return [tokenizer.decode([int(token)]) for token in tokens]


def text_table() -> pd.DataFrame:
    """Return documents, tokens and bytes a token of each domain and split."""
    card = files.read_json(tokens_folder() / "card.json", "domains")["domains"]
    rows = [
        {"domain": d, "split": s} | card[d][s]
        for d in DOMAINS
        for s in ("train", "validation", "test")
    ]
    columns = ["documents", "tokens", "bytes_per_token"]
    return pd.DataFrame(rows).set_index(["domain", "split"])[columns].round(2)
