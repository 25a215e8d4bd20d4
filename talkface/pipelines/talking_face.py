"""A face speaks: picture or film + sound -> frames, with a latent diffusion model of the lower face.

The method is that of the thesis (chapter 5; arXiv 2308.03183): for every frame the lower face is masked, and
a latent diffusion model paints it again, given the sound around the frame, the rest of the face and a
reference picture. Two ways to go through the frames:

* `autoregressive`, the paper's: one frame after the other; the latents just generated are the next frame's
  reference; fresh noise for every frame. It drifts with length and cannot be batched.
* `windowed`, ours: the reference is a picture of the person, the noise is shared by all frames, so frames are
  independent given these, computed in batches, and neither drift nor flicker.

Where the bundle was trained with guides (`talkface.head.guide`), the network refines them: the picture, animated by
a head fitted to it, at the picture's own resolution. `guide="warp"` shows the guides themselves, with no network.

Life of a call: read the sound and encode it once; find the face, align it, fit the head, encode it; then, for as
long as frames are asked for: draw the guides, sample, decode, match the colours, paste back. Memory does not grow
with the length but for the sound and its features (0.1 MB a second at most). Pasting runs while the next frames
are sampled.

What the call and the bundle decide together is in `film_settings.py`.

What a bundle's `meta` must say: `image_size`, `schedule`, `prediction_type`, `window` (feature steps on each
side of a frame), `window_rate` (steps a second; null = the frame rate), `mask` (kind), `num_inference_steps`,
`guidance_scale` (by conditioner); may say: `guide` (what `guide=None` means; none when absent), `articulation_gain`
(factor of what the speech encoder tells the mouth to do), `emotions` (names in the order of their ids),
`timestep_spacing`, `final_alpha`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from talkface import __version__
from talkface.conditioning.audio import Features
from talkface.errors import TalkfaceError, check_range
from talkface.media import Audio, exact_rate, open_video, read_audio, read_image
from talkface.pipelines.device import choose_device, choose_precision, fast_layout
from talkface.pipelines.face_guide import FaceGuide, crop_factor
from talkface.pipelines.face_painter import FacePainter, Sound
from talkface.pipelines.film_settings import (
    choose_references,
    feeling_of,
    guide_level,
    latent_sampler,
    listener,
)
from talkface.pipelines.liveliness import Liveliness, LivePicture, choose_motion
from talkface.pipelines.sources import (
    Shot,
    film_shots,
    film_timeline,
    find_in_film,
    find_in_picture,
    fixed_timeline,
    still_shots,
)
from talkface.pipelines.streaming import FrameStream, LiveSound
from talkface.pipelines.talking_film import TalkingFilm, notes_on, paste_frames
from talkface.portrait.crop import alignment_matrix

if TYPE_CHECKING:
    from talkface.checkpoint import Bundle

PathLike = str | os.PathLike[str]
MODES = ("windowed", "autoregressive")
MOST_WORKERS = 4  # each holds a group's activations: 0.1 GB
GROUP_FRAMES = {"cpu": 8, "mps": 8, "cuda": 32}


class TalkingFacePipeline:
    """Makes faces speak with one bundle.

    Args:
        bundle: built networks: first_stage, network, conditioner, speech, landmarks, and, if it has
            them, mouth and change_decoder; see `meta` above.
        precision: "auto", "fp32", "bf16", "fp16": of the first stage and the denoising network.
        finder: a `FaceFinder` to use instead of the bundle's landmark networks.
        group: frames in each network call; None = 8 on the CPU, 32 on CUDA. Another value may change the last
            bit of a frame; the batch size never does.
        workers: groups that are painted side by side on the CPU, each with its share of torch's threads; None = as
            many as torch has threads, at most 4. The number of threads, too, may change the last bit. Streams have 1.

    Raises:
        TalkfaceError: the bundle lacks a part or a value.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: str = "auto",
        finder: Any = None,
        group: int | None = None,
        workers: int | None = None,
    ) -> None:
        self.bundle, self.device = bundle, bundle.device
        self.dtype = choose_precision(precision, bundle.device)
        self.first_stage = fast_layout(bundle.part("first_stage"))
        self.network = fast_layout(bundle.part("network"))
        change = bundle.parts.get("change_decoder")
        self.change_decoder = None if change is None else fast_layout(change)
        self.conditioner = bundle.part("conditioner")
        self.speech = bundle.part("speech")
        self.schedule = bundle.build("schedule")
        self.image_size = int(bundle.value("image_size"))
        self.group = group or GROUP_FRAMES.get(bundle.device.type, 8)
        self.workers = workers or min(torch.get_num_threads(), MOST_WORKERS)
        if finder is None:
            from talkface.experts.faces import NetworkFaceFinder

            mouth = bundle.part("mouth") if "mouth" in bundle.parts else None
            finder = NetworkFaceFinder(bundle.part("landmarks"), mouth=mouth)
        self.finder = finder

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: PathLike = "default",
        device: str | torch.device = "auto",
        precision: str = "auto",
        finder: Any = None,
    ) -> TalkingFacePipeline:
        """Load a bundle by name or path. Raises: TalkfaceError when it is unknown or damaged."""
        from talkface.checkpoint import load_bundle

        chosen = choose_device(device)
        choose_precision(precision, chosen)
        return cls(load_bundle(name_or_path, chosen), precision, finder)

    def __call__(
        self,
        audio: PathLike | Audio | LiveSound,
        image: PathLike | np.ndarray | None = None,
        film: PathLike | None = None,
        *,
        mode: str = "windowed",
        guide: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | dict[str, float] | None = None,
        emotion: str | int | None = None,
        emotion_intensity: float = 1.0,
        motion: str | None = None,
        seed: int = 0,
        fps: float | Fraction | None = None,
        batch_size: int | None = None,
        crop: bool = False,
        face: int | None = None,
        eta: float = 0.0,
        independent_noise: float | None = None,
        reference: str = "first",
        window: int = 50,
        overlap: int = 10,
        max_seconds: float = 3600.0,
    ) -> TalkingFilm:
        """Make the face in `image`, or the mouth in `film`, speak `audio`; frames are computed when iterated.

        Args:
            audio: a sound file (any format, rate, channels), a film with sound, or an `Audio` at 16 kHz.
            image, film: exactly one of them; a picture file or uint8 (H, W, 3) RGB, or a film file. A film
                shorter than the sound stands still at its last frame; a longer one ends with the sound.
            mode: "windowed" or "autoregressive".
            guide: "refined": the network paints over the animated picture; "warp": the animated picture itself;
                "none": the network alone; None = the bundle's.
            num_inference_steps, guidance_scale: None = the bundle's; a number is the scale of the sound, a
                dictionary gives scales by conditioner; 1 = no guidance.
            emotion: name or id; None = left open. The network is told, where it has emotions; a picture's whole
                face shows it; with a guide a film's mouth does.
            emotion_intensity: 0 (as without) to 1.
            motion: "none", "subtle", "lively": what a picture does besides speaking: blinks, head, brows; None =
                DEFAULT_MOTION for a picture. Films move by themselves.
            seed: same seed, same bytes, whatever the batch size.
            fps: None = 25 for a picture, the film's own for a film.
            batch_size: frames prepared and passed on together, rounded up to whole groups; changes memory and
                the time to the first frame, never the frames. Speed comes from `group`.
            crop: frames are the aligned square face instead of the whole picture.
            face: 1 = the largest. In films it counts where the face is first seen.
            eta: noise added at each step, 0 to 1 (the thesis: 200 steps, eta 1).
            independent_noise: share of a frame's own noise, 0 to 1; None = 0 windowed, 1 autoregressive.
            reference: films: "first" = the first usable frame for the whole film; "window" = for every window
                of `window` frames its own first frame, fused over `overlap` frames where windows meet. A
                frame near its reference may copy its mouth: use "window" only where light or pose change
                much.
            max_seconds: longer sounds are refused.

        Raises:
            TalkfaceError: an argument, the sound, the picture or the face in it does not allow it.
        """
        live = audio if isinstance(audio, LiveSound) else None
        group = self.group if live is None else live.group
        if (image is None) == (film is None):
            raise TalkfaceError("give either image=... (a picture) or film=... (a film to dub)")
        if mode not in MODES:
            raise TalkfaceError(f"mode: {mode}; allowed are {', '.join(MODES)}")
        check_range("seed", seed, 0, 2**63 - 1)
        check_range("eta", eta, 0, 1)
        check_range("face", face or 1, 1, 1000)
        check_range("batch_size", group if batch_size is None else batch_size, 1, 4096)
        if independent_noise is None:
            independent_noise = 1.0 if mode == "autoregressive" else 0.0
        check_range("independent_noise", independent_noise, 0, 1)
        level = guide_level(self.bundle, guide)
        sampler = latent_sampler(
            self.bundle, self.network, self.schedule, num_inference_steps, guidance_scale, eta
        )
        feeling = feeling_of(self.bundle, emotion, emotion_intensity, level)
        speech = listener(self.speech, feeling, level) if live is None else live.speech
        motion = choose_motion(motion, film is not None)
        if not isinstance(audio, Audio | LiveSound):
            audio = read_audio(audio, self.speech.sample_rate, max_seconds)
        sound = audio
        rate = None if fps is None else exact_rate(fps)
        rank = 0 if face is None else face - 1

        def size(points: np.ndarray) -> int:
            scale = 1 / np.sqrt(np.linalg.det(alignment_matrix(points, self.image_size)[:, :2]))
            return self.image_size * (1 if level == "none" else crop_factor(float(scale)))

        # 1. whose face, and when each frame is shown
        shots: Callable[[], Iterator[Shot]]
        pixel_aspect = Fraction(1)
        if image is not None:
            rate = rate or Fraction(25)
            line = (
                sound.timeline(rate) if isinstance(sound, LiveSound) else fixed_timeline(sound.duration, rate)
            )
            name = "the picture" if isinstance(image, np.ndarray) else str(image)
            picture = image if isinstance(image, np.ndarray) else read_image(image)
            found = find_in_picture(name, picture, self.finder, rank, size)
            shots = partial(still_shots, found, line)
        elif isinstance(sound, LiveSound):
            raise TalkfaceError("film: sound that is still coming makes a picture speak; give image=...")
        else:
            assert film is not None
            reader = open_video(film)
            pixel_aspect = reader.pixel_aspect
            line = film_timeline(reader, sound.duration, rate)
            found = find_in_film(reader, self.finder, rank, size)
            shots = partial(film_shots, reader, self.finder, rank, found.crop.size, line)
        heard = sound if isinstance(sound, Audio) else None
        notes = notes_on(heard, found, face, None if film is None else reader.duration)
        life = Liveliness(motion, feeling, heard, seed)
        alive = LivePicture(found, life) if film is None and life.moves_faces else None

        # 2. what the sound says, once for all frames
        window_rate = self.bundle.value("window_rate") or float(line.fps)
        features: Features
        if isinstance(sound, LiveSound):
            features = sound.features
            shots = partial(
                sound.shots, found, line.fps, int(self.bundle.value("window")) / float(window_rate)
            )
        else:
            features = self.hear(sound, speech)
        animator = None
        if level != "none":
            animator = FaceGuide(
                found.crop,
                found.points,
                speech,
                features,
                speech.feature_rate,
                still=film is None,
                life=life if life.strength else None,
                device=self.device,
            )
        painter = FacePainter(
            first_stage=self.first_stage,
            sampler=sampler,
            sound=Sound(
                features,
                speech.feature_rate,
                int(self.bundle.value("window")),
                float(window_rate),
                columns=self.speech.feature_dim,
            ),
            references=choose_references(found.crop, film is not None, mode, reference, window, overlap),
            image_size=self.image_size,
            mask_kind=str(self.bundle.value("mask")),
            seed=seed,
            independent_noise=independent_noise,
            group=1 if mode == "autoregressive" and level != "warp" else group,
            batch_size=batch_size or group,
            device=self.device,
            dtype=self.dtype,
            emotion=feeling.number,
            still=film is None,
            autoregressive=mode == "autoregressive",
            guide=animator,
            refined=level != "warp",
            workers=self.workers if self._side_by_side(live is None, mode, level) else 1,
            change_decoder=self.change_decoder,
        )
        return TalkingFilm(
            fps=line.fps,
            num_frames=line.num_frames,
            times=line.starts if line.variable else None,
            pixel_aspect=Fraction(1) if crop else pixel_aspect,
            notes=notes,
            metadata={
                "talkface": __version__,
                "bundle": self.bundle.folder.name,
                "mode": mode,
                "guide": level,
                "seed": seed,
                "num_inference_steps": sampler.num_inference_steps,
                "guidance_scale": sampler.scales,
                "emotion": emotion,
                "emotion_intensity": emotion_intensity,
                "motion": motion,
            },
            make_frames=lambda result: paste_frames(painter, shots, crop, result, alive, ahead=live is None),
        )

    @torch.inference_mode()
    def hear(self, sound: Audio, speech: Any = None) -> Tensor:
        """(T, D) on the CPU: what the speech encoder says of a sound, its articulation amplified as the bundle asks.

        Args:
            speech: who listens, see `film_settings.listener`; None: the bundle's encoder.
        """
        speech = self.speech if speech is None else speech
        samples = torch.from_numpy(sound.samples).to(self.device)
        return self.amplified(speech.encode_long(samples), speech).float().cpu()

    def amplified(self, features: Tensor, speech: Any = None) -> Tensor:
        """Features of the speech encoder (or of another listener) with the bundle's `articulation_gain`."""
        speech = self.speech if speech is None else speech
        gain = float(self.bundle.meta.get("articulation_gain", 1.0))
        if gain == 1.0:
            return features
        if not hasattr(speech, "amplified"):
            raise TalkfaceError(
                f"bundle {self.bundle.folder.name}: articulation_gain {gain:g} is for an ArticulationEncoder, not for "
                f"{type(speech).__name__}; leave it out of bundle.json"
            )
        return speech.amplified(features, gain)

    def stream(
        self,
        audio_chunks: Iterable[np.ndarray],
        image: PathLike | np.ndarray,
        *,
        lookahead: float | None = 0.4,
        level: torch.Tensor | None = None,
        group: int = 4,
        **options: Any,
    ) -> FrameStream:
        """Make the face in `image` speak sound that is still coming; the face is found before this returns.

        Args:
            audio_chunks: the sound at `speech.sample_rate` (16 kHz), mono, in chunks of any size: float32 (n,) in
                [-1, 1], or int16 (n,). It is asked for a chunk whenever the next frames need one.
            image: see `__call__`.
            lookahead: seconds, 0 to 10, of sound after a frame that are waited for; None: as much as `__call__` uses.
            level: what `speech.level(samples[None])` returns for such a sound; None: estimated while it comes.
            group: frames in each network call, 1 to 64; fewer come sooner and cost more.
            options: of `__call__`, those for pictures.

        Returns:
            Frames, made when they are asked for. With `lookahead` None, `motion` "none", and the `group` and one
            worker of the pipeline, they are those of `__call__`, byte for byte; memory is then bounded if the level is
            given. Motion follows no emphasis, which would have to be waited for.

        Raises:
            TalkfaceError: an argument, the picture or the face in it; while iterating: a chunk, or no sound at all.
        """
        check_range("lookahead", lookahead or 0.0, 0, 10)
        check_range("group", group, 1, 64)
        guide = guide_level(self.bundle, options.get("guide"))
        feeling = feeling_of(
            self.bundle, options.get("emotion"), options.get("emotion_intensity", 1.0), guide
        )
        speech = listener(self.speech, feeling, guide)
        sound = LiveSound(
            audio_chunks,
            speech,
            group=group,
            lookahead=lookahead,
            level=level,
            device=self.device,
            amplified=partial(self.amplified, speech=speech),
        )
        return FrameStream(self(sound, image, **options), sound)

    def _side_by_side(self, is_whole: bool, mode: str, level: str) -> bool:
        """Whether groups can be painted at the same time, and gain by it: small networks leave cores idle."""
        independent = mode == "windowed" and is_whole
        return independent and level != "warp" and self.device.type == "cpu"
