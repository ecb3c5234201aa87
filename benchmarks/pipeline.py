"""Where the time of `make repro` goes, against an earlier state.

Seconds are by stage, as the stages' own tables record them.

    python benchmarks/pipeline.py [--studies build/laptop/studies] [--against HEAD]

Nothing is run. Every study writes `<study>.cost.csv`: seconds of a core for each training,
evaluation or measurement, also where the run cache answered. They are summed, not overlapped: two
jobs at a time take half of it by the clock. Not in them: start of a kernel, figures, and the data
stages. --against is a git revision, whose published tables are read.
"""

import io
import subprocess
from pathlib import Path

import pandas as pd
import table
from matplotlib.axes import Axes

ROOT = Path(__file__).parent.parent
PUBLISHED = "results/laptop"


def seconds_of(text: str) -> tuple[float, int]:
    """Return a cost table's seconds in all, and its number of jobs."""
    cost = pd.read_csv(io.StringIO(text))
    return float(cost["seconds"].sum()), len(cost)


def published(revision: str, study: str) -> str | None:
    """Return a study's cost table at a revision.

    It is None where there is no table, or no git.
    """
    command = ["git", "show", f"{revision}:{PUBLISHED}/{study}/tables/{study}.cost.csv"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout


def rows_of(studies: Path, against: str) -> list[table.Row]:
    """Return a row a study, sorted by name, and their sum.

    The ratio is given where both sides are known.
    """
    rows: list[table.Row] = []
    for path in sorted(studies.glob("*/tables/*.cost.csv")):
        study = path.name.removesuffix(".cost.csv")
        seconds, jobs = seconds_of(path.read_text(encoding="utf-8"))
        earlier = published(against, study)
        before = None if earlier is None else seconds_of(earlier)[0]
        rows.append({"stage": study, "jobs": jobs, "core_seconds": seconds, "against": before})
    both = [row for row in rows if row["against"] is not None]
    total = {"stage": "all that both have", "jobs": sum(row["jobs"] for row in both)}
    rows.append(
        total | {name: sum(row[name] for row in both) for name in ("core_seconds", "against")}
    )
    return [
        row | {"ratio": row["core_seconds"] / row["against"] if row["against"] else None}
        for row in rows
    ]


def draw(frame: pd.DataFrame, axis: Axes) -> None:
    """Draw the stages' minutes.

    The earlier state's minutes are marks.
    """
    stages = frame.iloc[:-1]
    axis.barh(stages["stage"], stages["core_seconds"] / 60)
    earlier = stages.dropna(subset="against")
    axis.plot(earlier["against"] / 60, earlier["stage"], "k|", ms=14, label="earlier")
    axis.set(xlabel="minutes of a core")
    axis.legend(frameon=False)


def main() -> None:
    """Read, print and write."""
    parser = table.parser_of(__file__, __doc__)
    parser.add_argument(
        "--studies", type=Path, help=f"default: build/laptop/studies, or else {PUBLISHED}"
    )
    parser.add_argument("--against", default="HEAD", help="git revision")
    args = parser.parse_args()
    folders = (
        (args.studies,)
        if args.studies
        else (ROOT / "build" / "laptop" / "studies", ROOT / PUBLISHED)
    )
    found = next((folder for folder in folders if any(folder.glob("*/tables/*.cost.csv"))), None)
    if found is None:
        parser.error(f"{folders[0]}: expected */tables/*.cost.csv, which `make repro` writes")
    print(
        f"{found.relative_to(ROOT) if found.is_relative_to(ROOT) else found} "
        f"against {PUBLISHED} at {args.against}"
    )
    frame = table.save(rows_of(found, args.against), args.out, draw)
    print(frame.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
