"""What the default bundle is made of: sizes and class paths of its parts, and how they are sampled."""

from __future__ import annotations

from typing import Any

from talkface.data.base import EMOTIONS

IMAGE_SIZE, WINDOW, WINDOW_RATE = 128, 3, 25.0
LATENT_CHANNELS = 6
STEPS = 4  # of the sampler; the network is trained at its noise levels only

FIRST_STAGE = {
    "class_path": "talkface.networks.vqgan.VQGAN",
    "init_args": {
        "channels": 64,
        "channel_mult": [1, 2],
        "patch_size": 2,
        "num_res_blocks": 1,
        "decoder_num_res_blocks": 1,
        "attention_resolutions": [],
        "image_size": IMAGE_SIZE,
        "latent_channels": LATENT_CHANNELS,
        "codebook_size": None,
        "latent_noise": 0.1,
    },
}
SCHEDULE = {"class_path": "talkface.diffusion.schedule.NoiseSchedule", "init_args": {}}
CHANGE_DECODER = {
    "class_path": "talkface.networks.change_decoder.ChangeDecoder",
    "init_args": {"latent_channels": LATENT_CHANNELS},
}
CONTEXT, AUDIO_EMBEDDING, EMOTION_EMBEDDING = 128, 256, 64
NETWORK = {
    "class_path": "talkface.networks.unet.UNet",
    "init_args": {
        "in_channels": 4 * LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "model_channels": 48,
        "channel_mult": [1, 2, 3],
        "num_res_blocks": 1,
        "attention_downsamples": [4],
        "num_head_channels": 24,
        "context_dim": CONTEXT,
        "embedding_dim": AUDIO_EMBEDDING + EMOTION_EMBEDDING,
        "image_size": IMAGE_SIZE // 4,
    },
}


def conditioner_spec(feature_dim: int) -> dict[str, Any]:
    """Sound as tokens and as an embedding, emotion as an embedding, masked and reference latents stacked."""
    audio = {
        "feature_dim": feature_dim,
        "window": WINDOW,
        "mode": "tokens",
        "dim": CONTEXT,
        "embedding_dim": AUDIO_EMBEDDING,
        "drop_rate": 0.1,
    }
    emotion = {"num_classes": len(EMOTIONS), "dim": EMOTION_EMBEDDING, "fills": "embedding", "drop_rate": 0.5}
    conditioners = {
        "audio": {"class_path": "talkface.conditioning.audio.AudioConditioner", "init_args": audio},
        "emotion": {"class_path": "talkface.conditioning.face.EmotionConditioner", "init_args": emotion},
        "frames": {
            "class_path": "talkface.conditioning.frames.FramesConditioner",
            "init_args": {
                "latent_channels": LATENT_CHANNELS,
                "latent_size": IMAGE_SIZE // 4,
                "order": ["masked", "reference"],
            },
        },
        # apart from the others, so that it can be left out: `--guide none`
        "guide": {
            "class_path": "talkface.conditioning.frames.FramesConditioner",
            "init_args": {
                "latent_channels": LATENT_CHANNELS,
                "latent_size": IMAGE_SIZE // 4,
                "order": ["guide"],
                "drop_rate": 0.1,
            },
        },
    }
    return {
        "class_path": "talkface.conditioning.base.ConditionerSet",
        "init_args": {"conditioners": conditioners},
    }


META: dict[str, Any] = {
    "licence": "Apache-2.0",
    "image_size": IMAGE_SIZE,
    "schedule": SCHEDULE,
    "prediction_type": "velocity",
    "window": WINDOW,
    "window_rate": WINDOW_RATE,
    "mask": "lower_face",
    "num_inference_steps": 1,
    "guidance_scale": {"audio": 1.0},
    "guide": "refined",
    "articulation_gain": 1.3,
    "timestep_spacing": "trailing",
    "final_alpha": "one",
    "emotions": list(EMOTIONS),
}
