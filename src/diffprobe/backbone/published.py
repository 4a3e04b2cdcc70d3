"""What is publicly stated of Stable Diffusion's files, or follows from its public configurations.

What could not be found stated in public is left out: the checksums of Stable Diffusion 1.4's files in diffusers'
layout, and those of versions that are not named here.
"""

from __future__ import annotations

# SHA-256 -> what it is of. The hub lists it of every large file; these were found in public repositories that pin them.
WEIGHTS = {
    "fe4efff1e174c627256e44ec2991ba279b3816e364b49f9be2abc0b3ff3f8556": "sd-v1-4.ckpt",
    "14749efc0ae8ef0329391ad4436feb781b402f4fece4883c7ad8d10556d8a36a": "sd-v1-4-full-ema.ckpt",
    "cc6cb27103417325ff94f52b7a5d2dde45a7515b25c255d8e396c90014281516": "v1-5-pruned-emaonly.ckpt",
    "e1441589a6f3c5a53f5f54d0975a18a7feb7cdf0b0dee276dfc3331ae376a053": "v1-5-pruned.ckpt",
    "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa": "v1-5-pruned-emaonly.safetensors",
    "1a189f0be69d6106a48548e7626207dddd7042a418dbf372cefd05e0cdba61b6": "v1-5-pruned.safetensors",
    "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1": "the U-Net of stable-diffusion-v1-5",
    "c83908253f9a64d08c25fc90874c9c8aef9a329ce1ca5fb909d73b0c83d1ea21": "the U-Net of stable-diffusion-v1-5, float16",
    "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c": "the VAE of stable-diffusion-v1-5",
    "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334": "the text encoder of stable-diffusion-v1-5",
    "dcd690123cfc64383981a31d955694f6acf2072a80537fdb612c8e58ec87a8ac": "v2-1_768-ema-pruned.safetensors",
    "ad2a33c361c1f593c4a1fb32ea81afce2b5bb7d1983c6b94793a26a3b54b08a0": "v2-1_768-ema-pruned.ckpt",
    "31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b": "sd_xl_base_1.0.safetensors",
}

# Parameters of the U-Nets, by the width of the text that they attend to, and of Stable Diffusion 1's other networks
UNET_PARAMETERS = {
    768: ("Stable Diffusion 1", 859_520_964),
    1024: ("Stable Diffusion 2", 865_910_724),
    2048: ("Stable Diffusion XL", 2_567_463_684),
}
VAE_PARAMETERS = 83_653_863
TEXT_PARAMETERS = 123_060_480

# Three prompts of the test list of Chen, Viegas and Wattenberg (2023), with CLIP's tokens between start and end
CLIP_TOKENS, CLIP_START, CLIP_END = 49_408, 49_406, 49_407
PROMPT_TOKENS = {
    "Erica basketweave trousers": [13208, 1244, 2715, 22450, 23172],
    "Businesswoman holding paper against window": [8346, 2308, 5050, 2802, 1601, 4879],
    "f5a freedom fighter - Google Search": [325, 276, 320, 4511, 6438, 268, 3460, 1920],
}

# Seed of the list -> the first numbers of `torch.randn((1, 4, 64, 64))` by a CPU generator
FIRST_NOISE = {
    47150135: (-0.494681, -0.277522, 1.223161, 2.019309),
    55892045: (-1.045225, 1.463074, 1.364817, 0.349086),
}

# LMS, 15 steps, with the betas of Stable Diffusion 1: timesteps and noise levels (Karras et al. 2022, eq. 5)
LMS_BETAS = (0.00085, 0.012, "scaled_linear", 1000)
LMS_STEPS = 15
LMS_TIMESTEPS = tuple(999 - 999 / 14 * step for step in range(LMS_STEPS))
LMS_SIGMAS = (
    *(14.6146, 9.6826, 6.6780, 4.7746, 3.5221, 2.6666, 2.0606, 1.6156),
    *(1.2768, 1.0097, 0.7913, 0.6056, 0.4397, 0.2780, 0.0292),
)

# Stable Diffusion 1 at 512 pixels: channels and side of the outputs of the 16 self-attention layers, in their order
SELF_ATTENTION = (
    *((320, 64), (320, 64), (640, 32), (640, 32), (1280, 16), (1280, 16), (1280, 8)),
    *((1280, 16), (1280, 16), (1280, 16), (640, 32), (640, 32), (640, 32), (320, 64), (320, 64), (320, 64)),
)
LAST_SELF_ATTENTION = "up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_out.0"
