"""Images that the model makes from prompts and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from diffprobe.activations.batches import ImageBatch
from diffprobe.activations.sources.source import TrajectorySource, described
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import TrajectoryStep, fresh_scheduler, generate
from diffprobe.data.prompts import Prompt


class Generation(TrajectorySource):
    """One image a prompt; `half` of the guidance batch is taken."""

    def __init__(self, prompts: Sequence[Prompt], sampling_steps: int = 15, half: str = "conditional") -> None:
        self.prompts, self.sampling_steps, self.half = list(prompts), sampling_steps, half
        self.names = [prompt.name for prompt in prompts]
        self.captions = [prompt.text for prompt in prompts]

    def scheduler(self, backbone: Backbone) -> Any:
        return fresh_scheduler(backbone, self.sampling_steps)

    def seeds(self, rows: Sequence[int]) -> list[int]:
        return [self.prompts[row].seed for row in rows]

    def run(
        self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
        return generate(backbone, batch.prompts, batch.seeds, steps=self.sampling_steps, layers=layers, half=self.half)

    def description(self, backbone: Backbone) -> dict[str, Any]:
        return {
            "kind": "generation",
            "half": self.half,
            "sampling_steps": self.sampling_steps,
            "guidance": backbone.guidance_for(backbone.guided),
            "scheduler": described(self.scheduler(backbone)),
        }

    def records(self) -> list[dict[str, Any]]:
        return [{"id": prompt.name, "prompt": prompt.text, "seed": prompt.seed} for prompt in self.prompts]
