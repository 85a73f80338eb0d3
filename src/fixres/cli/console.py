"""What a person sees while work goes on: bars on a terminal, plain lines in a log. Everything goes to stderr.

Every command imports this module, also to refuse a typo at once, so that rich is imported when something is printed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from fixres.cli.epoch_lines import LONG_WAIT, EpochLines
from fixres.errors import counted, printable
from fixres.io.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from fixres.experiments.seeds import Study
    from fixres.resolution import Preprocess

_WIDEST = 10_000
"""Columns that no table needs."""
_LINES = {
    "begin": "{text}",
    "note": "note: {text}",
    "speed": "note: {text}",
    "kept": "  kept epoch {epoch:g} ({why}: {top1:.2f} %)",
    "out_of_time": "  the time is up: stage {stage} ends after step {step}",
    "chosen": "test size {size} px: {why} (on {split}, n = {num_images:,})",
    "cell": "cell {done} of {total}: trained at {train_size} px, {arm} at {test_size} px, seed {seed}: "
    "top-1 {top1:.2f} %, {seconds:.1f} s",
}
"""Events that are said as they are, by name."""


class Console:
    """A listener of run events that prints them."""

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        from rich.console import Console as RichConsole

        self.rich = RichConsole(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        self.quiet = quiet
        self.verbose = verbose
        self._progress: RichProgress | None = None
        self._task: tuple[str, TaskID] | None = None
        self._told = time.monotonic()
        self._num_classes = 1
        self._imbalance: Mapping[str, float] = {}
        self._stage = EpochLines({})

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Print one event."""
        name = event["event"]
        if self._stage.ended and name not in ("eval", "progress"):
            self._tell_epoch({})
        if name in _LINES:
            self.say(_LINES[name].format_map(event))
        elif (handler := getattr(self, f"_on_{name}", None)) is not None:
            handler(event)

    def say(self, text: str) -> None:
        """Print a line, unless quiet."""
        if not self.quiet:
            self.close()
            self.rich.print(printable(text), markup=False)

    def warn(self, text: str) -> None:
        """Print a warning, quiet or not."""
        self.close()
        self.rich.print(f"warning: {text}", markup=False, style="yellow" if self.rich.is_terminal else None)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the first column is text, the others numbers."""
        from rich.measure import Measurement
        from rich.table import Table

        self.close()
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for i, name in enumerate(header):
            table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        # As wide as it is: in a pipe, and on a narrow terminal, rich would cut numbers off to fit 80 columns.
        table.width = Measurement.get(self.rich, self.rich.options.update(max_width=_WIDEST), table).maximum
        self.rich.print()
        self.rich.print(table, crop=False, no_wrap=True, overflow="ignore")
        self.rich.print()

    def preprocessing(self, preprocess: Preprocess, source: str) -> None:
        """Print the one line about size, crop and resize, and where it comes from."""
        self.say(f"input: {preprocess.describe()} (from {source})")

    def progress(self, what: str, done: int, total: int | None, note: str = "") -> None:
        """Show how far a work is."""
        if self.quiet:
            return
        if not self.rich.is_terminal:
            # Epochs print their own line; this is for epochs and measurements so long that a log would look dead.
            if time.monotonic() - self._told > 30:
                self._told = time.monotonic()
                # What comes in through a pipe has no known end.
                self.say(f"  {what}: {done}" + ("" if total is None else f"/{total}") + (f"  {note}" if note else ""))
            return
        if self._progress is None:
            from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = (
                "{task.description}",
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                "{task.fields[note]}",
            )
            self._progress = RichProgress(*columns, console=self.rich, transient=True)
            self._progress.start()
        if self._task is None or self._task[0] != what:
            if self._task is not None:
                self._progress.remove_task(self._task[1])
            self._task = what, self._progress.add_task(what, total=total, note=note)
        self._progress.update(self._task[1], completed=done, note=note)

    def bar(self, what: str) -> Progress:
        """Return what shows how far a work is, which `close` ends."""
        return partial(self.progress, what)

    def close(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress, self._task = None, None

    def _on_progress(self, event: Mapping[str, Any]) -> None:
        note = ""
        if "loss" in event:
            note = f"loss {event['loss']:.3f}  {event['rate']:.0f} img/s"
            self._stage.begin(event["done"])
        self.progress(event["what"], event["done"], event["total"], note)

    def _on_start(self, event: Mapping[str, Any]) -> None:
        counts = ", ".join(f"{name} {count:,}" for name, count in event["num_images"].items())
        classes = event["classes"]
        self._num_classes, self._imbalance = len(classes), event.get("imbalance", {})
        names = ", ".join(classes[:6]) + (", ..." if len(classes) > 6 else "")
        self.say(f"model: {event['model']}, weights {event['weights']}, on {event['device']}")
        self.say(f"data: {event['uri']}, {len(classes)} classes ({names}); {counts}")
        if event["select"] == event["report"] == "train":
            self.say("all pictures with a label are trained on: none is left to choose or to report on")
        else:
            self.say(f"select on {event['select']} (epochs, sizes), report on {event['report']}")
        for note in event["notes"]:
            self.say(f"note: {note}")

    def _on_plan(self, event: Mapping[str, Any]) -> None:
        self._stage = EpochLines(event)
        crops = {"random": "random crops", "resize": "resized random crops", "pad": "padded random crops"}
        crops["center"] = "the test-time crop"
        self.say(f"stage {event['stage']}: {event['text']}")
        if event.get("solver") == "cached":
            self.say(f"  head solved on frozen features at {event['size']} px, without epochs")
        else:
            self.say(f"  train on {crops[event['crop']]} at {event['size']} px, {event['total_steps']:,} steps")
        self.say(f"  test at {event['preprocess']}")

    def _on_train(self, event: Mapping[str, Any]) -> None:
        self._stage.add(event)
        self._told = time.monotonic()
        if self.verbose:
            self.say(f"  step {event['step']} loss {event['loss']:.4f} lr {event['lr']:.2e}")

    def _on_epoch(self, event: Mapping[str, Any]) -> None:
        # Its line waits for the measurement that most epochs end with.
        self._stage.ended = event

    def _on_warning(self, event: Mapping[str, Any]) -> None:
        self.warn(event["text"])

    def _on_eval(self, event: Mapping[str, Any]) -> None:
        self._tell_epoch(event)

    def _tell_epoch(self, measured: Mapping[str, Any]) -> None:
        self.say(self._stage.line(measured, self._imbalance))

    def _on_stage_done(self, event: Mapping[str, Any]) -> None:
        wait = event.get("data_wait_ratio", 0.0)
        if wait > LONG_WAIT:
            self.say(
                f"  {100 * wait:.0f} % of stage {event['stage']} went to waiting for pictures: raise --data.workers; "
                "at the number of cores, store them smaller, or on a faster disk"
            )

    def _on_bad_images(self, event: Mapping[str, Any]) -> None:
        num = counted(event["num_bad_images"], "picture")
        self.warn(f"{num} left out because they cannot be read, last {event['paths'][-1]}")

    def _on_sweep(self, event: Mapping[str, Any]) -> None:
        if self.quiet:
            return
        label = {"before": "before the fix"}.get(event["label"], event["label"])
        title = f"{label}: accuracy against size on {event['split']}, n = {event['num_images']:,}"
        self.table(title, *self._results(event))

    def _results(
        self, event: Mapping[str, Any], labels: Sequence[str] | None = None
    ) -> tuple[list[str], list[list[str]]]:
        return results_table(event["results"], labels, self._num_classes, self._imbalance.get(event["split"]))

    def _on_probed(self, event: Mapping[str, Any]) -> None:
        if event["loss"] is not None:
            self.say(
                f"  {event['network']} at {event['size']} px, crop {event['crop_ratio']:g}: {event['top1']:.1f} %, "
                f"loss {event['loss']:.3f} ({event['how']}, {event['n']:,} pictures), {event['gmacs']:.3f} GMACs"
            )

    def _on_candidates(self, event: Mapping[str, Any]) -> None:
        title = f"candidates on {event['split']}, n = {event['num_images']:,}"
        header = ["", "size", "top-1 %", "loss", "after temperature", "minus the cheapest probe", "GMACs"]
        self.table(title, header, [candidate_cells(row) for row in event["candidates"]])

    def _on_comparison(self, event: Mapping[str, Any]) -> None:
        title = f"result on {event['split']}, n = {event['num_images']:,}"
        labels = [row["label"] for row in event["rows"]]
        if event.get("new_head"):
            labels = [label.replace("fixed", "head solved") for label in labels]
        pairs = zip(labels, event["rows"], strict=True)
        labels = [label + (" (ships)" if row.get("is_shipped") else "") for label, row in pairs]
        self.table(title, *self._results({**event, "results": event["rows"]}, labels))
        for line in comparison_lines(event):
            self.rich.print(line, markup=False)

    def _on_elsewhere(self, event: Mapping[str, Any]) -> None:
        header = ["", "size", *(f"{column['name']} (n = {column['num_images']:,})" for column in event["columns"])]
        rows = [[row["label"], str(row["size"]), *(f"{top1:.2f}" for top1 in row["top1"])] for row in event["rows"]]
        self.table("top-1 % on other pictures", header, rows)


def candidate_cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of the table of what could ship."""
    error = "" if row["standard_error"] is None else f" +- {row['standard_error']:.4f}"
    figures = [f"{row['top1']:.2f}", f"{row['loss']:.4f}", f"{row['loss_calibrated']:.4f}"]
    label = row["label"] + (" (ships)" if row["is_shipped"] else "")
    return [label, str(row["size"]), *figures, f"{row['difference']:+.4f}{error}", f"{row['gmacs']:.3f}"]


def results_table(
    results: Sequence[Mapping[str, Any]],
    labels: Sequence[str] | None = None,
    num_classes: int = 1,
    imbalance: float | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows for a list of results, with a column of labels when given.

    Top-5 is for more than ten classes, balanced accuracy for uneven ones (`is_uneven`).
    """
    from fixres.evaluation.metrics import is_shown, is_uneven

    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "top-1 %": lambda r: f"{r['top1']:.2f}",
        "95 % interval": lambda r: "{:.1f} to {:.1f}".format(*r["top1_ci95"]),
    }
    if is_uneven(imbalance):
        columns["balanced %"] = lambda r: f"{r['balanced_accuracy']:.2f}"
    if is_shown("top5", num_classes):
        columns["top-5 %"] = lambda r: f"{r['top5']:.2f}" if r["top5"] is not None else "-"
    columns["loss"] = lambda r: f"{r['loss']:.3f}"
    columns["ECE"] = lambda r: f"{r['ece']:.3f}"
    columns["GMACs"] = lambda r: f"{r['gmacs']:.3f}"
    columns["img/s"] = lambda r: f"{r['images_per_second']:.0f}"
    rows = [[str(r["size"]), *(write(r) for write in columns.values())] for r in results]
    if labels is None:
        return ["size", *columns], rows
    return ["", "size", *columns], [[label, *row] for label, row in zip(labels, rows, strict=True)]


def study_table(study: Study) -> tuple[str, list[str], list[list[str]]]:
    """Return title, header and rows of a study: mean and standard deviation over seeds."""
    from fixres.evaluation.metrics import is_uneven

    seeds = ", ".join(map(str, study.seeds))
    title = f"{study.split}, n = {study.num_images:,} pictures, {counted(len(study.seeds), 'seed')} ({seeds})"
    # One seed has no spread, which is not a spread of 0.
    has_spread = len(study.seeds) > 1
    with_balanced = is_uneven(study.imbalance) and all("balanced_accuracy" in row.metrics for row in study.rows)

    def mean(values: Sequence[float]) -> str:
        return f"{fmean(values):.2f}" + (f" +- {stdev(values):.2f}" if has_spread else "")

    rows = [
        [
            row.label,
            "/".join(map(str, row.sizes)),
            mean(row.top1),
            *([mean(row.metrics["balanced_accuracy"])] if with_balanced else []),
            f"{row.gmacs:.3f}",
            f"{row.train_seconds / 60:.1f}",
        ]
        for row in study.rows
    ]
    # After a new head there is no before.
    size = "of that, the size" if study.top1 else "fixed minus fixed at the train size"
    for said, what, d, digits in (
        ("fixed minus before", "points of top-1", study.top1, 2),
        ("of that, the head solved again at the train size", "points of top-1", study.head, 2),
        (size, "points of top-1", study.size, 2),
        ("fixed minus before", "nats of loss", study.loss, 3),
    ):
        if d is not None:
            low, high = d.ci95
            verdict = " (not distinguishable)" if low <= 0 <= high else ""
            spread = f"+- {d.std:.{digits}f} {what} over seeds" if has_spread else what
            title += (
                f"\n{said}: {d.mean:+.{digits}f} {spread}, "
                f"95 % interval over pictures {low:+.{digits}f} to {high:+.{digits}f}{verdict}"
            )
    return title, ["", "size", "top-1 %", *(["balanced %"] if with_balanced else []), "GMACs", "minutes"], rows


def paired_sentence(paired: Mapping[str, Any], what: str = "fixed minus before") -> str:
    """Return a difference on the same pictures, its interval, and whether that contains 0."""
    from fixres.reporting.number_format import p_value

    low, high = paired["ci95"]
    text = (
        f"{what}: {paired['difference']:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f} "
        f"(better on {counted(paired['num_better'], 'picture')}, worse on {paired['num_worse']}, "
        f"{p_value(paired['p_value'])})"
    )
    return text + (": not distinguishable" if low <= 0 <= high or paired["p_value"] >= 0.05 else "")


def comparison_lines(event: Mapping[str, Any]) -> list[str]:
    """Return what is said below the table of a comparison: what the fix gained, and where that comes from."""
    from fixres.training.train_size_control import CONTROL

    found = {(d["row"], d["minus"]): d for d in event.get("differences", ())}
    size = found.get(("fixed", CONTROL))
    if event.get("new_head"):
        fixed = event["rows"][-1]["size"]
        lines = [f"a head on frozen features at {fixed} px; the network itself was not trained on these pictures"]
        return lines + ([paired_sentence(size, f"{fixed} px minus the train size")] if size else [])
    if not event["paired"]:
        return []
    lines = [paired_sentence(event["paired"])]
    if (CONTROL, "train size") in found and size:
        lines.append(
            paired_sentence(found[CONTROL, "train size"], "  of that, the head solved again at the train size")
        )
        lines.append(paired_sentence(size, "  of that, the size"))
    if ("fixed", "larger size only") in found:
        lines.append(paired_sentence(found["fixed", "larger size only"], "fixed minus the larger size only"))
    return lines
