"""The networks of the pocket world: the untrained parts of its pipeline, and its trained labeler and classifier."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffprobe.errors import UserError
from diffprobe.pocket.scenes import COLOURS, SHAPES
from diffprobe.weights import check_unchanged, fill, read_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, LMSDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

IMAGE_SIZE = 64
LATENT_SIZE = 16
LATENT_CHANNELS = 4
SCALING_FACTOR = 0.18215
TOKENS = 24
TEXT_WIDTH = 64
SLOTS = 3  # objects that the classifier names
MAPS = ("saliency", "depth", "shading")
# Of the second decoder: outputs of each map, and where it is among all
SURFACES = {"normals": 3, "albedo": 1, "shape": 1 + len(SHAPES), "colour": 1 + len(COLOURS), "shadow": 1}

WORDS = ("a", "to", "the", "left", "right", "of", "and", "from", ",", *COLOURS, *SHAPES)
START, END = "<|startoftext|>", "<|endoftext|>"
Network = TypeVar("Network", bound=nn.Module)


def build_autoencoder() -> AutoencoderKL:
    """64x64 pixels to 16x16 latents of 4 channels. Two norm groups: with 8 the absolute colour is lost."""
    from diffusers import AutoencoderKL

    build: Any = AutoencoderKL  # its annotations are narrower than what it takes
    return build(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=LATENT_CHANNELS,
        sample_size=IMAGE_SIZE,
        scaling_factor=SCALING_FACTOR,
    )


def build_denoiser() -> UNet2DConditionModel:
    """The U-Net of Stable Diffusion 1.4 with its block types and module names, 64 to 96 channels wide."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        block_out_channels=(64, 80, 96, 96),
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # the number of heads, despite its name
        norm_num_groups=8,
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """A CLIP text encoder of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer with one token for each word of the scene grammar; other words are spelled in letters."""
    from transformers import CLIPTokenizer

    letters = sorted(set(itertools.chain.from_iterable(WORDS)) | set("abcdefghijklmnopqrstuvwxyz0123456789"))
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        while len(parts := _merged(word, merges)) > 1:
            merges.append((parts[0], parts[1]))
    symbols = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    build: Any = CLIPTokenizer
    return build(vocab=vocabulary, merges=merges, model_max_length=TOKENS, unk_token=END)


def _merged(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte pair encoding of one word: every merge, in order."""
    parts = [*word[:-1], word[-1] + "</w>"]
    for pair in merges:
        at = 0
        while at + 1 < len(parts):
            if (parts[at], parts[at + 1]) == pair:
                parts[at : at + 2] = ["".join(pair)]
            at += 1
    return parts


def build_scheduler() -> LMSDiscreteScheduler:
    """Stable Diffusion 1.4's noise schedule and the papers' sampler; the network predicts v, not the noise."""
    from diffusers import LMSDiscreteScheduler

    return LMSDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        steps_offset=1,
    )


class LabelerNetwork(nn.Module):
    """A small U-Net on blocks of 2x2 pixels, from an image to its saliency, inverse depth and shading."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(len(MAPS)))
        self.register_buffer("scale", torch.ones(len(MAPS)))
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, width, 3, padding=1), _Block(width))
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(low, high, 3, stride=2, padding=1), _Block(high), _Block(high))
            for low, high in pairwise(widths)
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(low + high, low, 3, padding=1), _Block(low)) for low, high in pairwise(widths)
        )
        self.head = nn.Sequential(nn.Conv2d(width, 4 * len(MAPS), 3, padding=1), nn.PixelShuffle(2))

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 3, size, size] in [0, 1] -> the same shape: logit of saliency, standardised depth and shading."""
        return self._outputs(self.features(images))

    def _outputs(self, features: Sequence[Tensor]) -> Tensor:
        return self.head(_decoded(self.up, features))

    def features(self, images: Tensor) -> list[Tensor]:
        """What the encoder makes of images [batch, 3, size, size] in [0, 1], from fine to coarse."""
        features = [self.stem(images * 2 - 1)]
        for block in self.down:
            features.append(block(features[-1]))
        return features

    def maps(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Of `features`: probability of saliency, inverse depth, and irradiance, each [batch, size, size]."""
        logit, depth, shading = self._outputs(features).float().unbind(1)
        return {
            "saliency": logit.sigmoid(),
            "depth": depth * self.scale[1] + self.mean[1],
            "shading": shading * self.scale[2] + self.mean[2],
        }


class SurfaceNetwork(nn.Module):
    """A second decoder on the labeler's encoder, to the maps of `SURFACES`."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        self.mean: Tensor  # of albedo, and its scale
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(low + high, low, 3, padding=1), _Block(low), _Block(low))
            for low, high in pairwise(widths)
        )
        self.head = nn.Sequential(nn.Conv2d(width, 4 * sum(SURFACES.values()), 3, padding=1), nn.PixelShuffle(2))

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """`LabelerNetwork.features` -> directions, standardised albedo, and logits: [batch, outputs, size, size]."""
        outputs = self.head(_decoded(self.up, features)).float()
        return dict(zip(SURFACES, outputs.split(list(SURFACES.values()), 1), strict=True))

    def maps(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Unit normals [batch, 3, size, size]; albedo, class numbers and the probability of shadow [batch, size,
        size]."""
        outputs = self(features)
        return {
            "normals": functional.normalize(outputs["normals"], dim=1),
            "albedo": outputs["albedo"][:, 0] * self.scale + self.mean,
            "shape": outputs["shape"].argmax(1).float(),
            "colour": outputs["colour"].argmax(1).float(),
            "shadow": outputs["shadow"][:, 0].sigmoid(),
        }


def _decoded(up: nn.ModuleList, features: Sequence[Tensor]) -> Tensor:
    """Features from fine to coarse, joined from coarse to fine."""
    *finer, below = features
    for block, beside in zip(reversed(up), reversed(finer), strict=True):  # type: ignore[call-overload]
        below = block(torch.cat([beside, functional.interpolate(below, size=beside.shape[-2:])], 1))
    return below


class ClassifierNetwork(nn.Module):
    """Names the colour and shape of up to three objects, from left to right; the last class of each is 'no object'."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, width, 3, padding=1)]
        for low, high in ((width, 2 * width), (2 * width, 3 * width)):
            layers += [_Block(low), nn.Conv2d(low, high, 3, stride=2, padding=1)]
        layers += [_Block(3 * width), nn.Conv2d(3 * width, 16, 1), nn.Flatten(), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(16 * 64, SLOTS * (len(COLOURS) + len(SHAPES) + 2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, 3, 64, 64] in [0, 1] -> logits of colour [batch, 3, 7] and shape [batch, 3, 5]."""
        logits = self.head(self.features(images * 2 - 1)).unflatten(-1, (SLOTS, -1))
        return logits[..., : len(COLOURS) + 1], logits[..., len(COLOURS) + 1 :]


class _Block(nn.Module):
    """Two normalised convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


def load_labeler() -> LabelerNetwork:
    """The shipped labeler, frozen."""
    return load_weights(LabelerNetwork(), shipped("labeler.safetensors"))


def load_surfaces() -> SurfaceNetwork:
    """The shipped second decoder of the labeler, frozen."""
    return load_weights(SurfaceNetwork(), shipped("surfaces.safetensors"))


def load_classifier() -> ClassifierNetwork:
    """The shipped classifier, frozen."""
    return load_weights(ClassifierNetwork(), shipped("classifier.safetensors"))


def shipped(name: str) -> Path:
    """A file of the weights inside the package. Raises UserError if it is missing or damaged."""
    folder = Path(str(files("diffprobe.pocket"))) / "weights"
    if not (folder / name).exists():
        raise UserError(f"{folder / name} is missing; train it: python -m diffprobe.pocket.training all --install")
    check_unchanged(folder, name)
    return folder / name


def load_weights(network: Network, path: Path) -> Network:
    """Fills a network with float16 weights from a file, in float32, and freezes it; UserError unless they fit."""
    weights = {key: value.float() for key, value in read_weights(path).items()}
    return fill(network, weights, str(path)).requires_grad_(False).eval()
