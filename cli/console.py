"""The terminal: where commands print, and how a training run or a search is told there."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from tuning.experiment import Trial

console = Console(soft_wrap=True)
complaints = Console(stderr=True, soft_wrap=True)


class ConsoleListener:
    """A training run told on the terminal: a line for each finished stage, a bar for the one at work."""

    def __init__(self) -> None:
        self.bar: tuple[Progress, TaskID] | None = None

    def working(self, stage: str, done: int, total: int) -> None:
        """See `tuning.train.Listener`."""
        if not total:
            self.close()
            bar = Progress(
                TextColumn(f"{stage:>13} "),
                BarColumn(30),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
            bar.start()
            self.bar = bar, bar.add_task("", total=None)
        else:
            self._move(done, total, f"{done} / {total} markets")

    def stage(self, name: str, note: str, *, resumed: bool) -> None:
        """See `tuning.train.Listener`."""
        self.close()
        again = "  [dim](from the resumed run)[/]" if resumed else ""
        console.print(f"[bold]{name:>13}[/]  {escape(note)}{again}")

    def warning(self, text: str) -> None:
        """See `tuning.train.Listener`."""
        console.print(f"      [yellow]warning[/]  {escape(text)}")

    def progress(self, done: int, total: int, score: float) -> None:
        """See `tuning.train.Listener`."""
        self._move(done, total, f"{done:,} / {total:,} steps, expected utility {score:+.4f} R per signal")

    def searching(self, done: int, total: int, running: int, best: float | None) -> None:
        """See `tuning.tune.SearchListener`."""
        if self.bar is None:
            columns = (
                TextColumn("       trials  "),
                BarColumn(40),
                TextColumn("{task.completed} / {task.total}"),
                TextColumn("{task.description}"),
            )
            bar = Progress(*columns, console=console, transient=True)
            bar.start()
            self.bar = bar, bar.add_task("", total=total)
        seen = "" if best is None else f", best so far {best:+.4f} R per signal"
        self.bar[0].update(self.bar[1], completed=done, description=f"{running} running{seen}")

    def trial(self, trial: "Trial") -> None:
        """See `tuning.tune.SearchListener`."""
        settings = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in trial.sample.items()
        )
        said = f"{escape(trial.standing)}  [dim]{escape(settings)}[/]"
        console.print(f"[bold]{trial.name:>13}[/]  {said}", highlight=False)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar[0].stop()
            self.bar = None

    def _move(self, done: int, total: int, text: str) -> None:
        if self.bar is not None:
            bar, task = self.bar
            bar.update(task, completed=done, total=total, description=text)


def warn(text: str) -> None:
    """Something the user should know, though the command went on."""
    complaints.print(f"[yellow]warning[/] {escape(text)}", highlight=False)


def shown(path: Path) -> Path:
    """As one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
