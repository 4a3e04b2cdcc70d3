"""The W&B workspace of a project, and a report of one run, as code: python -m diffprobe.report.dashboard ENTITY/PROJECT

Without --save it prints what it would make and calls nobody. Without --run the panels are those of train.py's default
question; with --run FOLDER they are those of that run's properties, scores and controls, and a report with its verdict
is made too. Needs the extra `dashboard`: pip install -e '.[dashboard]' -c constraints.txt
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffprobe.errors import UserError, one_line
from diffprobe.files import write_text
from diffprobe.properties import PAPERS, PROPERTIES
from diffprobe.ranges import typed_path
from diffprobe.report.report import STEP
from diffprobe.signals import run_command
from diffprobe.terminal import module_command

NAME = "diffprobe"
BEST, HEADLINE = "best", "headline"
PAPERS_CONTROLS = ("permuted", "position")
OBJECTS = r".+/(auc|mean_average_precision|knn_accuracy)"  # <measure>/<layer>/<statistic>
OVER_STEPS = ("scores_over_steps", "emergence", "shortcuts_over_steps", "cka")
TRAINING = r"train(_control)?-(training|validation)_loss/.+"
# Of the configuration, to tell the runs of a sweep apart
ASKED = ("seed", "model.path", "layers.select", "steps.sampling", "probe.name")
EXTRA = "making dashboards needs wandb-workspaces: pip install -e '.[dashboard]' -c constraints.txt"


@dataclass(frozen=True)
class Curves:
    """What runs log of the property `name`: '<name>/<metric>/<curve>' for each curve."""

    name: str
    metric: str
    curves: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        return [f"{self.name}/{self.metric}/{curve}" for curve in self.curves]


def default_curves() -> list[Curves]:
    """Of train.py's default question."""
    names = (BEST, HEADLINE, *PAPERS_CONTROLS)
    return [Curves(name, PROPERTIES[name].headline, names) for name in PAPERS]


def curves_of_run(folder: Path) -> list[Curves]:
    """Of a run of train.py or of analysis=emergence; none of another analysis.

    Raises:
        UserError: the folder holds no finished run.
    """
    from diffprobe.probes.summaries import headline_metric, read_summary

    if not (folder / "report.txt").is_file():
        raise UserError(f"{folder} holds no finished run: there is no report.txt in it; give a run folder")
    if not (folder / "summary.csv").is_file():
        return []
    summaries = read_summary(folder / "summary.csv")
    found = []
    for name in summaries["property"].unique():
        controls = [each for each in summaries["control"].unique() if each != "none"]
        found.append(Curves(name, headline_metric(summaries, name).name, (BEST, HEADLINE, *controls)))
    return found


def verdict_of_run(folder: Path) -> list[str]:
    """The sentences of report.txt, each on one line, without the headings between them."""
    text = (folder / "report.txt").read_text(encoding="utf-8")
    found = [" ".join(each.split()) for each in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]
    return [each[: each.rfind(".") + 1] for each in found]  # a heading has no full stop


def make_workspace(entity: str, project: str, curves: Sequence[Curves]) -> Any:
    """A workspace of W&B: scores over steps, layers and steps, objects, a sweep's runs side by side, training."""
    panels, workspaces = _packages()
    sections = [workspaces.Section(name=one.name, panels=_score_panels(panels, one), is_open=True) for one in curves]
    sections += [
        workspaces.Section(name="layers and steps", panels=_layer_panels(panels, curves), is_open=True),
        workspaces.Section(
            name="what the probes see", panels=[_media(panels, "predictions", ["predictions/saliency"])]
        ),
        workspaces.Section(name="objects", panels=_object_panels(panels)),
        workspaces.Section(name="runs of a sweep", panels=_sweep_panels(panels, curves)),
        workspaces.Section(name="training", panels=_training_panels(panels)),
    ]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=sections,
        settings=workspaces.WorkspaceSettings(x_axis=STEP, smoothing_type="none", max_runs=20),
    )


def make_report(entity: str, project: str, curves: Sequence[Curves], folder: Path) -> Any:
    """A report of W&B with the verdict of one run, and the panels of the project's runs."""
    panels, _ = _packages()
    runs = panels.Runset(name="all runs")  # of the report's own project; a named one would be looked up at W&B
    shown = [panel for one in curves for panel in _score_panels(panels, one)]
    shown += [*_layer_panels(panels, curves), *(_object_panels(panels) if not curves else [])]
    return panels.Report(
        entity=entity,
        project=project,
        title=f"{NAME}: {folder.resolve().parent.name}/{folder.resolve().name}",
        blocks=[
            panels.H1("Verdict"),
            panels.UnorderedList(items=verdict_of_run(folder)),
            panels.H1("Scores"),
            panels.PanelGrid(runsets=[runs], panels=shown),
            panels.H1("Runs of a sweep"),
            panels.PanelGrid(runsets=[runs], panels=_sweep_panels(panels, curves)),
        ],
    )


def _packages() -> tuple[Any, Any]:
    """Panels and reports, and workspaces, of wandb-workspaces."""
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UserError(EXTRA) from error
    return panels, workspaces


def _score_panels(panels: Any, one: Curves) -> list[Any]:
    """The scores over steps beside their controls, and the best layer's with its interval."""
    best = one.keys[0]
    title = f"{one.name}: {one.metric} over steps"
    common = {"x": STEP, "title_x": "denoising step", "smoothing_type": "none", "title_y": one.metric}
    return [
        panels.LinePlot(title=title, y=one.keys, **common),
        panels.LinePlot(title=f"{title}, 95 % interval", y=[best, f"{best}_low", f"{best}_high"], **common),
    ]


def _layer_panels(panels: Any, curves: Sequence[Curves]) -> list[Any]:
    figures = [f"figures/layers_{one.name}" for one in curves]
    return [
        _media(panels, "layers and steps", [*figures, "figures/separation"]),
        _media(panels, "over steps", [f"figures/{name}" for name in OVER_STEPS]),
        panels.WeavePanelSummaryTable(table_name="tables/summary"),
        panels.WeavePanelSummaryTable(table_name="tables/emergence_order"),
    ]


def _object_panels(panels: Any) -> list[Any]:
    return [
        panels.LinePlot(title="objects by layer", x=STEP, metric_regex=OBJECTS, smoothing_type="none"),
        panels.WeavePanelSummaryTable(table_name="tables/sets"),
        panels.WeavePanelSummaryTable(table_name="tables/tests"),
    ]


def _sweep_panels(panels: Any, curves: Sequence[Curves]) -> list[Any]:
    """The settings and last scores of runs beside each other, and what differs between them."""
    column = panels.ParallelCoordinatesPlotColumn
    columns = [column(metric=panels.Config(key), display_name=key) for key in ASKED]
    columns += [column(metric=panels.SummaryMetric(one.keys[0]), display_name=one.keys[0]) for one in curves]
    return [
        panels.ParallelCoordinatesPlot(title="settings and last scores", columns=columns),
        panels.RunComparer(diff_only="split"),
    ]


def _training_panels(panels: Any) -> list[Any]:
    return [panels.LinePlot(title="losses", x="trainer/global_step", metric_regex=TRAINING, smoothing_type="none")]


def _media(panels: Any, title: str, keys: list[str]) -> Any:
    return panels.MediaBrowser(title=title, media_keys=keys, num_columns=2)


def specification(made: Any) -> dict[str, Any]:
    """What would be sent to W&B for a workspace or a report, without identities that are drawn at random."""
    return _without_identities(json.loads(made._to_model().model_dump_json(by_alias=True, exclude_none=True)))


def _without_identities(value: Any) -> Any:
    if isinstance(value, Mapping):
        dropped = ("__id__", "id", "ref", "createdAt", "updatedAt")
        return {key: _without_identities(each) for key, each in value.items() if key not in dropped}
    if isinstance(value, list):
        return [_without_identities(each) for each in value]
    if isinstance(value, str) and value[:1] in "{[":  # a specification within a specification, as text
        try:
            return _without_identities(json.loads(value))
        except ValueError:
            return value
    return value


def outline(workspace: Any) -> list[str]:
    """A line a section, and one for each of its panels."""
    lines = []
    for section in workspace.sections:
        lines.append(section.name)
        for panel in section.panels:
            title = getattr(panel, "title", None) or getattr(panel, "table_name", None) or ""
            lines.append(f"  {type(panel).__name__}{f': {title}' if title else ''}")
    return lines


def save(made: Any) -> str:
    """Sends it to W&B, and returns its address. Raises UserError if that fails."""
    try:
        made.save()
    except Exception as error:  # wandb and its transport raise many kinds
        raise UserError(
            f"W&B did not take it: {one_line(error)}. Run 'wandb login' once, and check the project"
        ) from error
    return made.url


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=module_command("diffprobe.report.dashboard"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("project", metavar="ENTITY/PROJECT")
    parser.add_argument("--run", type=typed_path, help="run folder whose panels and verdict to take")
    parser.add_argument("--save", action="store_true", help="make it at W&B; asks for nothing, so log in before")
    parser.add_argument("--out", type=typed_path, help="write what would be sent, as JSON")
    options = parser.parse_args(arguments)
    entity, _, project = options.project.partition("/")
    if not entity or not project or "/" in project:
        parser.error(f"{options.project}: give ENTITY/PROJECT, such as my_team/diffprobe")
    try:
        curves = default_curves() if options.run is None else curves_of_run(options.run)
        made = [make_workspace(entity, project, curves)]
        if options.run is not None:
            made.append(make_report(entity, project, curves, options.run))
        print("\n".join(outline(made[0])))
        if options.out is not None:
            write_text(options.out, json.dumps([specification(each) for each in made], indent=1) + "\n")
            print(f"written to {options.out}")
        if options.save:
            print("\n".join(save(each) for each in made))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
