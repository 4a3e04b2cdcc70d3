"""A frozen diffusion model: its layers, its images step by step, and the activations that it makes on the way."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.api.layers import Layers
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from diffprobe.activations.extraction import Extraction
    from diffprobe.activations.sources import Source
    from diffprobe.backbone.load import Backbone
    from diffprobe.backbone.trajectory import TrajectoryStep

LayerItems = str | Sequence[str] | Layers
"""Layers, or names, kinds, stages and conditions as `layers.select` takes them, joined by `&`."""


def load(model: str | Path = "pocket", **settings: Any) -> Model:
    """Loads a frozen pipeline, on the GPU if there is one.

    Args:
        model: 'pocket', the built-in model; another choice of `model=` ('sd14', 'sd21', 'sdxl', 'sd3', 'flux', ...); a
            hub id 'owner/name'; a pipeline folder as `save_pretrained` writes it; or a Stable Diffusion 1.x checkpoint.
        settings: keys of the group `model`, such as dtype='float16', guidance=5.0, scheduler='ddim', size=256.

    Raises:
        UserError: there is no such model, its files are incomplete or of another kind, or a setting is wrong.

    >>> import diffprobe as dp
    >>> dp.load("pocket", scheduler="ddim")
    pocket on cpu: StableDiffusionPipeline, 64 pixels, float32, guidance 2.5
    """
    from diffprobe.api.settings import choices_of, compose_settings, typed
    from diffprobe.parts import make

    name = str(model)
    chosen = {"model": name} if name in choices_of("model") else {"model": "local", "model.path": name}
    overrides = typed({**chosen, **{f"model.{key}": value for key, value in settings.items()}})
    _, checked = compose_settings("train", overrides)
    return Model(make(checked.model), overrides)


@dataclass(frozen=True, eq=False)
class Model:
    """A frozen pipeline of diffusers; `load` makes it.

    Attributes:
        backbone: the pipeline and its parts.
        overrides: the settings that it was loaded with, as a command takes them.
    """

    backbone: Backbone
    overrides: Sequence[str]

    @property
    def name(self) -> str:
        """As tables and figures call it."""
        return self.backbone.name

    @property
    def pipeline(self) -> Any:
        """The pipeline of diffusers."""
        return self.backbone.pipeline

    def __repr__(self) -> str:
        backbone, dtype = self.backbone, str(self.backbone.dtype).removeprefix("torch.")
        return (
            f"{self.name} on {backbone.device}: {type(self.pipeline).__name__}, {backbone.image_size} pixels, {dtype}, "
            f"guidance {backbone.guidance:g}"
        )

    @cached_property
    def _all_layers(self) -> Layers:
        from diffprobe.backbone.layers import catalogue

        return Layers(catalogue(self.backbone.denoiser))

    def layers(self, select: LayerItems | None = None) -> Layers:
        """The layers that can be captured, or those that all conditions of an item fit.

        Args:
            select: a full name or a glob of names, a kind ('self_attention', 'resnet'), a stage ('encoder', 'mid',
                'decoder'), a condition ('resolution=16'), several joined by `&`, or a list of these.

        Raises:
            UserError: an item fits no layer; the message names the nearest.

        >>> import diffprobe as dp
        >>> model = dp.load("pocket")
        >>> len(model.layers()), len(model.layers("resnet")), len(model.layers("self_attention & decoder"))
        (469, 22, 9)
        """
        from diffprobe.backbone.layers import select_layers

        if select is None:
            return self._all_layers
        names = select.names if isinstance(select, Layers) else select
        return Layers(select_layers(list(self._all_layers), names))

    def generate(
        self,
        prompts: str | Sequence[str | Prompt],
        seeds: Sequence[int] | None = None,
        *,
        layers: LayerItems = (),
        steps: int = 15,
        decode: bool = True,
    ) -> Iterator[TrajectoryStep]:
        """Makes one image a prompt, and yields every step of the denoising.

        Args:
            prompts: texts, or prompts with seeds (`dp.prompts`).
            seeds: of the noise, one a text; 0, 1, 2, ... by default.
            layers: whose activations each step brings, of the conditional half.
            steps: of the sampler.
            decode: whether each step's latents are decoded to images.

        Yields:
            `TrajectoryStep`: `index` from 0, `timestep`, `latents`, `activations` {layer: [images, channels, h, w]},
            and `images` [images, 3, H, W] in [0, 1].

        Raises:
            UserError: no prompt, not one seed a prompt, no such layer, or an impossible number of steps.

        >>> import diffprobe as dp
        >>> model = dp.load("pocket")
        >>> for step in model.generate("a red sphere", layers="mid_block.resnets.0", steps=2):
        ...     print(step.index, tuple(step.images.shape), tuple(step.activations["mid_block.resnets.0"].shape))
        0 (1, 3, 64, 64) (1, 96, 2, 2)
        1 (1, 3, 64, 64) (1, 96, 2, 2)
        """
        from diffprobe.backbone.trajectory import generate

        chosen = self._prompts(prompts, seeds)
        names = self.layers(layers).names if layers else []
        texts, numbers = [prompt.text for prompt in chosen], [prompt.seed for prompt in chosen]
        return generate(self.backbone, texts, numbers, steps=steps, layers=names, decode=decode)

    def capture(
        self,
        prompts: str | Sequence[str | Prompt] | None = None,
        seeds: Sequence[int] | None = None,
        *,
        images: str | Path | None = None,
        timesteps: Sequence[int] = (0,),
        layers: LayerItems = "self_attention",
        steps: str | int | Sequence[int] = "all",
        sampling_steps: int = 15,
        dtype: str = "float32",
        batch_size: int = 8,
    ) -> Captured:
        """The activations of some layers, while images are made of prompts, or while real images are shown.

        Args:
            prompts, seeds: as of `generate`.
            images: in place of prompts, a folder or a list of photographs, see docs/images.md.
            timesteps: of the noise that is added to `images`; [0] adds none.
            layers: as of `layers`.
            steps: which are kept, counted from 0: 'all', 'last', a number, or a list. Of images, which timestep.
            sampling_steps: of the sampler.
            dtype: of what is kept: 'float32', 'float16' or 'bfloat16'.

        Raises:
            UserError: as of `generate`; an image cannot be read; or the memory cannot hold the activations.

        >>> import diffprobe as dp
        >>> model = dp.load("pocket")
        >>> found = model.capture(["a red sphere", "a blue cube"], layers="self_attention & decoder", steps=[0, 14])
        >>> found["up 3.0"].shape
        torch.Size([2, 2, 64, 16, 16])
        >>> found
        2 images, steps 0, 14, 9 layers: 1.11 MB
        """
        from diffprobe.activations.budget import check_memory, plan_run
        from diffprobe.activations.extraction import extract
        from diffprobe.activations.store.manifest import describe
        from diffprobe.analyses.inputs import chosen_steps
        from diffprobe.runs.trainers import quiet_libraries

        source = self._source(prompts, seeds, images, timesteps, sampling_steps)
        chosen = self.layers(layers)
        wanted = chosen_steps(steps if isinstance(steps, str | int) else list(steps), source.timesteps(self.backbone))
        manifest = describe(self.backbone, source, list(chosen), wanted, dtype, 1, identified=False)
        check_memory(plan_run(manifest, source.evaluations(self.backbone, wanted), [], 0))
        with quiet_libraries():
            found = extract(self.backbone, source, list(chosen), wanted, batch_size=batch_size, dtype=dtype)
        return Captured(self, chosen, found)

    def _prompts(self, given: str | Sequence[str | Prompt], seeds: Sequence[int] | None) -> list[Prompt]:
        """Those that are given; warns of what the model does not see of their texts."""
        from diffprobe.backbone.texts import text_warnings

        found = as_prompts(given, seeds)
        for line in text_warnings(self.backbone, {prompt.name: prompt.text for prompt in found}):
            warnings.warn(line, stacklevel=3)
        return found

    def _source(
        self,
        prompts: str | Sequence[str | Prompt] | None,
        seeds: Sequence[int] | None,
        images: str | Path | None,
        timesteps: Sequence[int],
        sampling_steps: int,
    ) -> Source:
        from diffprobe.activations.sources import Generation, Noised
        from diffprobe.data.images import ImageFileCollection, load_images, split_readable

        if (prompts is None) == (images is None):
            raise UserError("give one of prompts, of which images are made, and images, a folder or list of them")
        if images is None:
            return Generation(self._prompts(prompts or [], seeds), sampling_steps)
        if seeds is not None:
            raise UserError("seeds are of prompts; the noise of an image follows from its name")
        noise = "off" if list(timesteps) == [0] else "seeded"
        return Noised(ImageFileCollection(split_readable(load_images(images))[0]), list(timesteps), noise=noise)


def prompts(
    source: str | Path | Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    *,
    count: int | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Prompts with seeds: of a CSV file, of texts, or captions of the built-in world.

    Args:
        source: a CSV file with columns prompts and seeds, or texts; captions where it is None.
        seeds: of texts; 0, 1, 2, ... by default.
        count: of captions, or the first so many of a file; None takes 200 captions, or the whole file.
        seed: of captions.

    Raises:
        UserError: the file cannot be read, or as `Model.generate`.

    >>> import diffprobe as dp
    >>> dp.prompts(["a red sphere", "a blue cube"])[1]
    Prompt(text='a blue cube', seed=1, name='prompt_1_seed_1')
    >>> len(dp.prompts(count=3))
    3
    """
    from diffprobe.data.prompts import load_prompts

    if source is None or isinstance(source, str | Path):
        if seeds is not None:
            raise UserError("seeds are of texts; a file has its own, and captions follow from seed")
        return load_prompts(source, count, seed)
    return as_prompts(source, seeds)[:count]


def as_prompts(prompts: str | Sequence[str | Prompt], seeds: Sequence[int] | None = None) -> list[Prompt]:
    """Texts with their seeds, 0, 1, 2, ... by default; prompts stay as they are.

    Raises:
        UserError: there is none, one is neither, not one seed a text, or two prompts make one picture.
    """
    from diffprobe.data.prompts import duplicate_prompts

    items = [prompts] if isinstance(prompts, str | Prompt) else list(prompts)
    wrong = next((item for item in items if not isinstance(item, str | Prompt)), None)
    if not items or wrong is not None:
        raise UserError(f"prompts are texts, at least one, and not {'empty' if not items else repr(wrong)}")
    if seeds is not None and any(isinstance(item, Prompt) for item in items):
        raise UserError("these prompts have seeds of their own; leave seeds out")
    numbers = list(range(len(items)) if seeds is None else seeds)
    if len(numbers) != len(items):
        raise UserError(f"{len(items)} prompts and {len(numbers)} seeds; give one seed a prompt")
    pairs = enumerate(zip(items, numbers, strict=True))
    made = [
        item if isinstance(item, Prompt) else Prompt(item, seed, f"prompt_{place}_seed_{seed}")
        for place, (item, seed) in pairs
    ]
    same = duplicate_prompts(made)
    if same:
        raise UserError(f"two prompts make one picture, {same[0][1].text!r} with seed {same[0][1].seed}; keep one")
    return made


@dataclass(frozen=True, eq=False)
class Captured:
    """Activations of some layers at some steps, and the images they were taken of; `Model.capture` makes it.

    `captured[LAYER]`, by full or short name, is a tensor [steps, images, channels, height, width].
    """

    model: Model
    layers: Layers
    extraction: Extraction

    @property
    def steps(self) -> list[int]:
        """Counted from 0."""
        return list(self.extraction.activations.steps)

    @property
    def names(self) -> list[str]:
        """Of the images, in their order."""
        return list(self.extraction.source.names)

    @property
    def prompts(self) -> list[str]:
        """Their texts; of real images their captions."""
        return list(self.extraction.source.captions)

    @property
    def images(self) -> Tensor:
        """[images, 3, H, W] in [0, 1]: as they were made, or as they were shown."""
        return self.extraction.images

    def __getitem__(self, layer: str) -> Tensor:
        values: Any = self.extraction.activations.values
        return values[self.layers.find(layer).name]

    def __repr__(self) -> str:
        from diffprobe.activations.budget import in_units

        size = sum(self[name].nbytes for name in self.layers.names)
        steps = ", ".join(map(str, self.steps)) if len(self.steps) < 10 else f"{self.steps[0]} to {self.steps[-1]}"
        return f"{len(self.names)} images, steps {steps}, {len(self.layers)} layers: {in_units(size)}"

    def over_steps(self, image: int = 0) -> Tensor:
        """An image decoded after each of the steps, [steps, 3, H, W] in [0, 1]."""
        return self.extraction.decode_steps(self.model.backbone, image)

    def show(self, image: int = 0, layers: LayerItems | None = None) -> Figure:
        """A figure: the image after each step and, below it, the strength of the activations of some layers.

        Args:
            layers: by default none; names among those that were captured. Each cell is the root mean square over the
                channels, from the smallest to the largest of the layer.
        """
        from diffprobe.api.display import in_notebooks, strip_figure
        from diffprobe.backbone.layers import select_layers

        self._check(image)
        names = layers.names if isinstance(layers, Layers) else layers
        chosen = select_layers(list(self.layers), names) if names else []
        pictures = self.over_steps(image).permute(0, 2, 3, 1).float().numpy()
        short = self.layers.short
        maps = {
            short[layer.name]: self[layer.name][:, image].float().square().mean(1).sqrt().numpy() for layer in chosen
        }
        return in_notebooks(strip_figure(self.prompts[image], self.steps, pictures, maps))

    def _check(self, image: int) -> None:
        if not 0 <= image < len(self.names):
            raise UserError(f"image {image}: there are {len(self.names)}, counted from 0")
