"""What a study in Python returns, and a run folder that is read back: tables, sentences, figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.errors import UserError
from diffprobe.report.report import Headed, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from diffprobe.api.running import Finished
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.report.report import Report

SHOWN = 3  # heat maps of a result in a notebook


class Result:
    """What a study found: tables as DataFrames, sentences that intervals support, figures drawn when they are wanted.

    Printed, it is the closing table and the sentences; in a notebook, the sentences and the heat maps.
    """

    def __init__(self, finished: Finished) -> None:
        self._finished = finished

    @property
    def report(self) -> Report:
        """All of it as data, as `publish` writes it to a run folder."""
        return self._finished.report

    @property
    def kind(self) -> str:
        """'probing', or the name of an analysis."""
        return self._finished.kind

    @property
    def details(self) -> Any:
        """What the analysis returned before it was reported: of probing, `ProbingResults` with bank, split and maps."""
        return self._finished.details

    @cached_property
    def tables(self) -> dict[str, DataFrame]:
        """Every table by name, at full precision. Steps count from 0."""
        kept = {name: table for name, table in self.report.tables.items() if {"csv", "parquet"} & set(table.show)}
        return {name.rpartition("/")[2]: table.data for name, table in kept.items()}

    @property
    def scores(self) -> DataFrame:
        """A row for every metric of every image, layer and step. Raises UserError where the study scores no images."""
        return _table(self.tables, "scores", self.kind)

    @property
    def summary(self) -> DataFrame:
        """Means over images with 95 % intervals. Raises UserError where the study scores no images."""
        return _table(self.tables, "summary", self.kind)

    @property
    def findings(self) -> list[str]:
        """Sentences, with their intervals; what the intervals do not support is not claimed."""
        return [
            line
            for finding in self.report.findings
            for line in (finding.lines if isinstance(finding, Headed) else [finding])
        ]

    @property
    def figures(self) -> list[str]:
        """The names that `plot` takes."""
        return [name for name, figure in self.report.figures.items() if isinstance(figure, Plot)]

    @property
    def bank(self) -> ProbeBank:
        """The trained probes. Raises UserError where the study trains none."""
        bank = getattr(self.details, "bank", None)
        if bank is None:
            raise UserError(f"{self.kind} keeps no probes; those of dp.probe are in its result")
        return bank

    def plot(self, name: str | None = None) -> Figure:
        """Draws a figure of `figures`, by default the first.

        Raises:
            UserError: there is no such figure.
        """
        names = self.figures
        if not names or (name is not None and name not in names):
            raise UserError(f"no figure {name!r}; there are {', '.join(names) or 'none'}")
        from diffprobe.api.display import in_notebooks

        figure = self.report.figures[name or names[0]]
        assert isinstance(figure, Plot)
        return in_notebooks(figure.draw())

    def show(self, image: int = 0) -> Figure:
        """Draws one of the example images, as it is denoised, and what the probes see of it.

        Raises:
            UserError: there is no such example; `overrides=["report.examples=5"]` keeps more.
        """
        names = [name for name in self.figures if "example" in name and not name.endswith("_all_steps")]
        if not 0 <= image < len(names):
            raise UserError(
                f"example {image}: there are {len(names)}, counted from 0; overrides=['report.examples=5'] keeps more"
            )
        return self.plot(names[image])

    def save(self, folder: str | Path, *, track: bool = False) -> Path:
        """Writes a run folder, as the commands do: tables, figures, probes, report.html.

        `read_run` and `python analyze.py run=FOLDER` read it again.

        Args:
            track: logs it as `logger` says, by default to an offline run of Weights & Biases.

        Raises:
            UserError: the folder holds something else, or a finished run.
        """
        from diffprobe.api.saving import save

        return save(self._finished, Path(folder), track=track)

    def __repr__(self) -> str:
        from diffprobe.report.publish import report_text

        return f"{self.report.title}\n\n{report_text(self.report)}".rstrip()

    def _repr_html_(self) -> str:
        from diffprobe.api.display import figure_html, findings_html, heat_map_html

        layers = [layer for heat in self.report.heatmaps for layer in heat.layers]
        parts = [findings_html(self.report.title, self.report.findings, layers)]
        parts += [heat_map_html(heat) for heat in self.report.heatmaps[:SHOWN]]
        if not self.report.heatmaps and self.figures:
            parts.append(figure_html(self.plot(), self.figures[0]))
        return "".join(parts)


def _table(tables: Mapping[str, DataFrame], name: str, kind: str) -> DataFrame:
    if name not in tables:
        raise UserError(f"{kind} has no table {name!r}; it has {', '.join(tables)}")
    return tables[name]


def read_run(folder: str | Path) -> Run:
    """A finished run of `train.py` or `analyze.py`, or one that `Result.save` wrote.

    Raises:
        UserError: no finished run is there, or its files are damaged.

    >>> import diffprobe as dp
    >>> dp.read_run("no/such/folder")
    Traceback (most recent call last):
    diffprobe.errors.UserError: no/such/folder: there is no such folder; give the folder of a run
    """
    from diffprobe.runs.folder import FINISHED

    place = Path(folder).expanduser()
    if not place.is_dir():
        raise UserError(f"{place}: there is no such folder; give the folder of a run")
    if not (place / FINISHED).is_file():
        raise UserError(
            f"{place} holds no finished run ({FINISHED} is written last); give the folder of a finished one"
        )
    return Run(place)


class Run:
    """A finished run, read from its folder when it is asked.

    Attributes:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its settings, as they were composed."""
        from omegaconf import OmegaConf

        from diffprobe.runs.folder import read_recorded

        config: Any = OmegaConf.to_container(read_recorded(self.folder), resolve=True)
        return config

    @property
    def kind(self) -> str:
        """'probing', or the name of an analysis."""
        from diffprobe.parts import class_name

        return class_name(self.config["analysis"]) if "analysis" in self.config else "probing"

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware, seeds, seconds and network evaluations."""
        from diffprobe.runs.folder import FINISHED

        return json.loads((self.folder / FINISHED).read_text(encoding="utf-8"))

    @cached_property
    def tables(self) -> dict[str, DataFrame]:
        """Every table by name, at full precision. Steps count from 0."""
        import pandas as pd

        paths = [*self.folder.glob("*.csv"), *self.folder.glob("tables/*.csv")]
        tables = {path.stem: pd.read_csv(path, keep_default_na=True) for path in sorted(paths)}
        if self.kind == "probing":
            from diffprobe.probes.score_table import read_scores
            from diffprobe.probes.summaries import read_summary

            tables |= {"scores": read_scores(self.folder), "summary": read_summary(self.folder / "summary.csv")}
        return tables

    @property
    def scores(self) -> DataFrame:
        """As of `Result`."""
        return _table(self.tables, "scores", self.kind)

    @property
    def summary(self) -> DataFrame:
        """As of `Result`."""
        return _table(self.tables, "summary", self.kind)

    @property
    def text(self) -> str:
        """report.txt: the closing table and the sentences."""
        return (self.folder / "report.txt").read_text(encoding="utf-8")

    @property
    def findings(self) -> list[str]:
        """The sentences of the report."""
        found: list[str] = []
        lines = self.text.splitlines()
        first = next((place for place, line in enumerate(lines) if line.startswith("- ")), len(lines))
        for line in lines[first:]:
            if line.startswith("- "):
                found.append(line[2:].strip())
            elif found and line.strip():
                found[-1] += f" {line.strip()}"
        return found

    @property
    def figures(self) -> dict[str, Path]:
        """The PNG file of every figure, by name, examples last; a PDF is beside each."""
        paths = sorted((self.folder / "figures").glob("*.png"), key=lambda path: ("example" in path.stem, path.stem))
        return {path.stem: path for path in paths}

    @cached_property
    def bank(self) -> ProbeBank:
        """The trained probes. Raises UserError where there are none."""
        from diffprobe.probes.bank import load_bank

        return load_bank(self.folder / "probes")

    def plot(self, name: str | None = None) -> Figure:
        """A figure of `figures`, by default the first, as the run drew it. Raises UserError where there is none."""
        from matplotlib.figure import Figure
        from matplotlib.image import imread

        from diffprobe.api.display import in_notebooks

        figures = self.figures
        if not figures or (name is not None and name not in figures):
            raise UserError(f"no figure {name!r} in {self.folder}; there are {', '.join(figures) or 'none'}")
        picture = imread(figures[name or next(iter(figures))])
        figure = Figure(figsize=(picture.shape[1] / 200, picture.shape[0] / 200), dpi=200)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.imshow(picture, interpolation="none")
        return in_notebooks(figure)

    def __repr__(self) -> str:
        return f"{self.kind} in {self.folder}\n\n{self.text}".rstrip()

    def _repr_html_(self) -> str:
        from diffprobe.api.display import figure_html, findings_html

        layers = self.summary["layer"].unique() if self.kind == "probing" else ()
        parts = [findings_html(f"{self.kind} in {self.folder}", self.findings, layers)]
        if self.figures:
            parts.append(figure_html(self.plot(), next(iter(self.figures))))
        return "".join(parts)
