"""The words of the generated pages, in English and in Chinese.

Numbers, decisions and the order of things come from elsewhere, so that both READMEs say the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """Words and joints of one language.

    Keys of `axes` and `units` are the first words of an effect's name (`answers`); those of
    `verdicts` are the judge's words.
    """

    name: str
    axes: Mapping[str, str]
    units: Mapping[str, str]
    layouts: Mapping[str, str]
    verdicts: Mapping[str, str]
    gains: Mapping[str, str]
    never: str
    nothing: str
    comma: str
    last: str
    level: str  # The level from which length pays: axis, number, unit.
    mixed: str  # A verdict of cells: how many hold, of how many.
    columns: tuple[str, ...]  # Of the table of verdicts, after the claim's name.
    night: str  # The column of a night's budget.
    second: str  # How many verdicts a second machine gave too.

    def listed(self, words: Sequence[str]) -> str:
        """Return words as a list in a sentence."""
        *most, last = words or [self.nothing]
        return f"{self.comma.join(most)}{self.last}{last}" if most else last

    def verdict(self, said: str) -> str:
        """Return a judge's verdict in this language."""
        word, _, why = said.partition(" (")
        shown = self.verdicts[word]
        return f"{shown} ({self.verdicts[why.rstrip(')')]})" if why else shown


ENGLISH = Language(
    name="en",
    axes={
        "changes": "facts that change",
        "mentions": "texts that often name who is asked for and tell nothing",
        "namesakes": "people of like names",
        "tokens": "longer texts",
        "words left out": "answers told in other words than the question's",
        "hops": "answers joined from several sentences",
        "sentences": "answers told of a pronoun",
        "people": "counting people",
    },
    units={"sentences": "sentences after the name"},
    layouts={x: f"{{scheme}} for {x} evidence" for x in ("far", "near", "spread")},
    verdicts={
        word: word
        for word in (
            *("supported", "refuted", "undecided", "mixed", "pending"),
            *("check failed", "no rival", "no headroom", "budget", "choices disagree"),
        )
    },
    gains={
        "supported": "At least two points",
        "refuted": "Less than two points",
        "undecided": "Perhaps two points, perhaps none",
    },
    never="never",
    nothing="nothing",
    comma=", ",
    last=" and ",
    level="{axis} (from {number} {unit} on)",
    mixed="holds in {held} of {cells}",
    columns=("we tested", "estimate [95 %]", "threshold", "tries", "verdict"),
    night="a night's budget",
    second="A second machine, with another CPU, gave the same verdict for {same} of {both} claims.",
)

CHINESE = Language(
    name="zh",
    axes={
        "changes": "会变化的事实",
        "mentions": "多次提到所问之人却什么也没说的文本",
        "namesakes": "名字相近的人",
        "tokens": "更长的文本",
        "words left out": "用词与问句不同的答案",
        "hops": "须由几句拼成的答案",
        "sentences": "由代词说出的答案",
        "people": "数人",
    },
    units={
        "changes": "次变化",
        "mentions": "次提及",
        "namesakes": "个同名者",
        "tokens": "个词元",
        "words left out": "个缺失的词",
        "hops": "步",
        "sentences": "句间隔",
        "people": "人",
    },
    layouts={
        "far": "证据在远处用 {scheme}",
        "near": "证据在近处用 {scheme}",
        "spread": "证据分散用 {scheme}",
    },
    verdicts={
        "supported": "支持",
        "refuted": "否定",
        "undecided": "未决",
        "mixed": "因情形而异",
        "pending": "尚未发表",
        "check failed": "前提未成立",
        "no rival": "没有对手",
        "no headroom": "没有余地",
        "budget": "训练不足",
        "choices disagree": "几种选择不一致",
    },
    gains={
        "supported": "至少两分",
        "refuted": "不到两分",
        "undecided": "也许两分，也许没有",
    },
    never="从不",
    nothing="无",
    comma="、",
    last="和",
    level="{axis}（从 {number} {unit}起）",
    mixed="{cells} 格中成立 {held} 格",
    columns=("我们检验的是", "估计值 [95 %]", "阈值", "次数", "结论"),
    night="一夜的算力",
    second="另一台机器（另一种 CPU）对 {both} 条中的 {same} 条得出同样的结论。",
)
