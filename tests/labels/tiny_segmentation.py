"""Small random segmentation models in the layouts of published ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from shutil import copytree
from typing import Any

import torch

CLASSES = {0: "wall", 1: "person, individual", 2: "sky", 3: "screen door, screen", 4: "screen, projection screen"}
TOKENIZER = Path(str(files("diffprobe"))) / "pocket/weights/pipeline/tokenizer"
COLOURS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 2}
# As nvidia/segformer-b0-finetuned-ade-512-512, microsoft/beit-base-finetuned-ade-640-640, Intel/dpt-large-ade,
# apple/deeplabv3-mobilevit-small, facebook/mask2former-swin-tiny-ade-semantic, shi-labs/oneformer_ade20k_swin_tiny and
# tue-mps/ade20k_semantic_eomt_large_512 have them, but for the sizes.
PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "segformer": {"image_processor_type": "SegformerImageProcessor", "do_reduce_labels": True, "size": 64},
    "upernet": {"feature_extractor_type": "SegformerFeatureExtractor", "do_reduce_labels": True, "size": 64},
    "beit": {"feature_extractor_type": "BeitFeatureExtractor", "do_center_crop": False, "size": 32, "crop_size": 32},
    "dpt": {"feature_extractor_type": "DPTFeatureExtractor", "size": 32, "keep_aspect_ratio": False},
    "mobilevit": {
        "image_processor_type": "MobileViTImageProcessor",
        "do_center_crop": True,
        "crop_size": 64,
        "size": 80,
        "do_flip_channel_order": True,
    },
    "mask2former": {
        "image_processor_type": "Mask2FormerImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 256},
        "size_divisor": 32,
    },
    "maskformer": {
        "image_processor_type": "MaskFormerImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 256},
        "size_divisor": 32,
    },
    "oneformer": {
        "image_processor_type": "OneFormerImageProcessor",
        "processor_class": "OneFormerProcessor",
        "repo_path": "shi-labs/oneformer_demo",
        "class_info_file": "ade20k_panoptic.json",
        "num_text": 2,
        "size": {"height": 64, "width": 64},
    },
    "eomt": {
        "image_processor_type": "EomtImageProcessor",
        "do_split_image": True,
        "do_pad": False,
        "size": {"shortest_edge": 32, "longest_edge": None},
    },
}


def swin() -> Any:
    from transformers import SwinConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    heads = {"depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
    return SwinConfig(image_size=32, embed_dim=8, out_features=stages, **heads)


def vit(**more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    return {**sizes, "image_size": 32, "patch_size": 8, **more}


def settings(kind: str) -> dict[str, Any]:
    """Of the configuration: few channels and layers."""
    queries = {"num_queries": 6, "hidden_dim": 32, "dim_feedforward": 32, "encoder_feedforward_dim": 32}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 4}
    text = {"width": 32, "num_layers": 1, "vocab_size": 130, "context_length": 24, "n_ctx": 4, "proj_layers": 1}
    if kind == "maskformer":
        from transformers import DetrConfig

        small = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "num_queries": 6}
        return {"decoder_config": DetrConfig(d_model=32, **small), "fpn_feature_size": 32, "mask_feature_size": 32}
    return {
        "segformer": {
            "hidden_sizes": [8, 8, 8, 8],
            "num_attention_heads": [1, 1, 2, 2],
            "depths": [1, 1, 1, 1],
            "decoder_hidden_size": 8,
        },
        "upernet": {"hidden_size": 16, "auxiliary_channels": 8, "auxiliary_in_channels": 32},
        "beit": vit(out_indices=[1, 2, 3, 4], use_relative_position_bias=True, auxiliary_channels=8),
        "dpt": vit(backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8),
        "mobilevit": {
            "hidden_sizes": [16, 16, 16],
            "neck_hidden_sizes": [4, 8, 8, 8, 16, 16, 32],
            "num_attention_heads": 2,
            "image_size": 64,
            "aspp_out_channels": 8,
        },
        "mask2former": {**queries, **layers, "feature_size": 32, "mask_feature_size": 32},
        "oneformer": {
            **queries,
            **layers,
            **{f"text_encoder_{name}": value for name, value in text.items()},
            "conv_dim": 32,
            "mask_dim": 32,
            "task_seq_len": 24,
            "query_dec_layers": 1,
        },
        "eomt": {**vit(), "num_blocks": 1, "num_queries": 6, "num_upscale_blocks": 1},
    }[kind]


NETWORKS = {
    "segformer": ("SegformerConfig", "SegformerForSemanticSegmentation"),
    "upernet": ("UperNetConfig", "UperNetForSemanticSegmentation"),
    "beit": ("BeitConfig", "BeitForSemanticSegmentation"),
    "dpt": ("DPTConfig", "DPTForSemanticSegmentation"),
    "mobilevit": ("MobileViTConfig", "MobileViTForSemanticSegmentation"),
    "mask2former": ("Mask2FormerConfig", "Mask2FormerForUniversalSegmentation"),
    "maskformer": ("MaskFormerConfig", "MaskFormerForInstanceSegmentation"),
    "oneformer": ("OneFormerConfig", "OneFormerForUniversalSegmentation"),
    "eomt": ("EomtConfig", "EomtForUniversalSegmentation"),
}


SEEDS = {"segformer": 11, "maskformer": 8, "oneformer": 0}  # 4 of others: of models that see several classes in noise


def save_model(
    folder: Path, kind: str = "segformer", classes: Mapping[int, str] = CLASSES, seed: int | None = None
) -> str:
    """Saves a model of random weights, and returns its folder."""
    import transformers

    names = {"id2label": dict(classes), "label2id": {name: number for number, name in classes.items()}}
    backbone = {"backbone_config": swin()} if kind in ("upernet", "mask2former", "maskformer", "oneformer") else {}
    config, network = (getattr(transformers, name) for name in NETWORKS[kind])
    torch.manual_seed(SEEDS.get(kind, 4) if seed is None else seed)
    made = network(config(**settings(kind), **backbone, **names))
    with torch.no_grad():  # large enough for the answer to differ over the picture
        for weights in made.parameters():
            if kind in ("mask2former", "maskformer", "oneformer"):
                weights.copy_(weights + 0.3 * torch.randn(weights.shape))
            elif weights.ndim > 1:
                weights.copy_(weights + torch.randn(weights.shape) / weights[0].numel() ** 0.5)
    made.save_pretrained(folder)
    if kind == "oneformer":
        copytree(TOKENIZER, folder, dirs_exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps({**COLOURS, **PROCESSORS[kind]}))
    return str(folder)
