"""Change the expression of a face in a picture, with an emotion-conditional latent diffusion model.

The thesis's section 4.4 (arXiv 2308.03183): the picture's latents are inverted to noise with the label of what the face
shows, and denoised with the label of what it should show. Life of a picture: find the face and cut it out, several
times as large as the network's pictures; encode a small copy; classify it, unless the source is given; invert, denoise,
decode; lay what changed (decoded result minus decoded original, so that what the first stage loses cancels; of changes
of hue, away from the mouth, a part) over the large crop; paste that back. Where nothing changed the photograph's own
pixels stay.

What a bundle must have: `first_stage`, `network`, `conditioner` (which asks for `emotion`, and perhaps for `actions`
and for `frames`: the picture as `reference`, so that nobody need be guessed from noise, and as `guide` the picture
animated to the target by its fitted head; then the guide is inverted, and changes are laid over it) and, in `meta`,
`image_size`, `schedule`, `prediction_type`; it may have `classifier` (pictures (B, 3, S, S) in [-1, 1] -> probabilities
(B, emotions)), `landmarks` and `mouth` (the face finder; otherwise the default bundle's), and say `emotions`,
`final_alpha` and `editing` (values of `EditSettings`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from talkface import __version__
from talkface.adapters import load_adapter
from talkface.errors import TalkfaceError
from talkface.head.emotions import EMOTIONS
from talkface.head.expressing import Expresser
from talkface.head.model import ACTIONS
from talkface.media import to_tensor, to_uint8
from talkface.pipelines.device import autocast, choose_device, choose_precision, fast_layout
from talkface.pipelines.edited_face import EditedPicture, Face, cut_face, laid_over, shrunk, whole_face
from talkface.pipelines.expression import Expression, parse_expression, single, wanted_actions
from talkface.pipelines.latent_editing import EditSettings, LatentEditor, blend_expressions, slerp

if TYPE_CHECKING:
    from talkface.checkpoint import Bundle

AUTO = "auto"
TOLD = {"emotion", "actions", "frames"}
FRAMES = {"guide", "reference"}
GROUP_PICTURES = {"cpu": 1, "mps": 4, "cuda": 16}


class EmotionEditPipeline:
    """Changes expressions with one bundle.

    Args:
        bundle: see above.
        precision: "auto", "fp32", "bf16", "fp16".
        finder: a `FaceFinder`; None: the bundle's, else that of the default bundle, loaded when first needed.
        group: pictures in each network call; None = 1 on the CPU, 16 on CUDA. Another value may change the last bit
            of a picture; how many are edited together never does.

    Attributes:
        emotions: the names it knows, in the order of their ids.
        knows_actions: whether it can be told facial actions.
        is_guided: whether the network is shown the picture and its guide.
        defaults: `EditSettings` of the bundle.
        guided_by: fingerprints of the experts that guided its training and that of its adapter; they must not judge it.

    Raises:
        TalkfaceError: the bundle is not told emotions, or lacks a part or a value.
    """

    def __init__(
        self, bundle: Bundle, precision: str = "auto", finder: Any = None, group: int | None = None
    ) -> None:
        self.bundle, self.device, self.meta = bundle, bundle.device, bundle.meta
        conditioner = bundle.part("conditioner")
        asked = set(conditioner.conditioners)
        if "emotion" not in asked or asked - TOLD:
            raise TalkfaceError(
                f"the bundle {bundle.folder} edits no expressions: its network is told {', '.join(sorted(asked))}; "
                "allowed is a model that is told an emotion, and perhaps facial actions; give one with --bundle"
            )
        self.dtype = choose_precision(precision, bundle.device)
        coder, network = bundle.part("first_stage"), bundle.part("network")
        self.first_stage: Any = fast_layout(coder)
        self.classifier = bundle.parts.get("classifier")
        self.image_size = int(bundle.value("image_size"))
        count = conditioner.conditioners["emotion"].num_classes
        self.emotions: list[str] = list(self.meta.get("emotions") or EMOTIONS[:count])
        if len(self.emotions) != count:
            raise TalkfaceError(
                f"the bundle {bundle.folder} has {count} emotions and {len(self.emotions)} names for them; "
                "save it again with one name each"
            )
        self.knows_actions = "actions" in asked
        self.is_guided = "frames" in asked
        if self.is_guided and (other := set(conditioner.conditioners["frames"].order) - FRAMES):
            raise TalkfaceError(
                f"the bundle {bundle.folder} edits no expressions: its network is shown {', '.join(sorted(other))}; "
                f"allowed are {', '.join(sorted(FRAMES))}; give another one with --bundle"
            )
        self.editor = LatentEditor(
            network=fast_layout(network),
            conditioner=conditioner,
            schedule=bundle.build("schedule"),
            prediction_type=str(self.meta.get("prediction_type", "epsilon")),
            final_alpha=str(self.meta.get("final_alpha", "first")),
            group=group or GROUP_PICTURES.get(bundle.device.type, 1),
            device=bundle.device,
            dtype=self.dtype,
        )
        known = {field.name for field in fields(EditSettings)}
        given = {name: value for name, value in dict(self.meta.get("editing", {})).items() if name in known}
        self.defaults = EditSettings(**given)
        self.guided_by: list[str] = list(self.meta.get("guided_by", []))
        self._finder = finder
        self._expresser: Expresser | None = None

    @classmethod
    def from_pretrained(
        cls,
        bundle: str | os.PathLike[str] = "emotion",
        device: str | torch.device = "auto",
        precision: str = "auto",
        finder: Any = None,
        group: int | None = None,
    ) -> EmotionEditPipeline:
        """Load a bundle by name or path. Raises: TalkfaceError when it is unknown or damaged, or edits nothing."""
        from talkface.checkpoint import load_bundle

        chosen = choose_device(device)
        choose_precision(precision, chosen)
        return cls(load_bundle(bundle, chosen), precision, finder, group)

    def add_adapter(self, path: str | os.PathLike[str], name: str | None = None) -> dict[str, Any]:
        """Edit with an adapter of the network (see `talkface.adapters`) from now on; what its file says about it.

        Args:
            name: in the file; None: its only one.

        Raises:
            TalkfaceError: no such adapter, a damaged file, one of another network; `peft` is not installed.
        """
        about = load_adapter(self.editor.network, path, name)
        fast_layout(self.editor.network)
        self.guided_by += about.get("guided_by", [])
        return about

    @property
    def finder(self) -> Any:
        """Finds faces and their landmarks."""
        if self._finder is None:
            from talkface.checkpoint import load_bundle
            from talkface.experts.faces import NetworkFaceFinder

            parts = self.bundle.parts
            if "landmarks" not in parts:
                parts = load_bundle("default", self.device, parts=("landmarks", "mouth")).parts
            # to mypy a part is a Module; the bundle's `landmarks` and `mouth` are these networks
            self._finder = NetworkFaceFinder(parts["landmarks"], mouth=parts.get("mouth"))  # type: ignore[arg-type]
        return self._finder

    # --- what is asked ------------------------------------------------------------------------------------

    def expression(self, text: str, option: str = "to") -> Expression:
        """Read a target or source; see `parse_expression`."""
        return parse_expression(text, self.emotions, self.knows_actions, option)

    def source_expression(self, text: str) -> Expression | None:
        """Read a source; None stands for "auto", which needs a classifier. Raises: TalkfaceError."""
        if text != AUTO:
            return self.expression(text, "from")
        if self.classifier is None:
            raise TalkfaceError(
                f"from: auto; the bundle {self.bundle.folder} has no emotion classifier; say what the face shows: "
                f"{', '.join(self.emotions)}, or none"
            )
        return None

    def describe(self, settings: EditSettings) -> dict[str, Any]:
        """Everything that decides a result besides picture, source and target; for metadata."""
        settings.check(self.editor.schedule)
        from talkface.data.features import encoder_key

        parts = nn.ModuleList([self.editor.network, self.editor.conditioner, self.first_stage])
        return {
            "generator": f"talkface {__version__}",
            "model": encoder_key(parts).split("-")[-1],
            "precision": str(self.dtype).removeprefix("torch."),
            **asdict(settings),
            "inversion_guidance_scale": settings.source_scale,
            "grid": settings.used_grid,
        }

    # --- stages -------------------------------------------------------------------------------------------

    def cut(
        self, picture: np.ndarray, name: str = "the picture", face: int | None = None, aligned: bool = False
    ) -> Face:
        """Find the face in uint8 (H, W, 3) and cut it out.

        Args:
            name: for messages.
            face: 1 = the largest.
            aligned: the picture is a square face, cut as `AlignedCrop` does; its landmarks are looked for only if
                the network is guided, and without them its guide is the picture itself.

        Raises:
            TalkfaceError: no usable face, or an `aligned` picture that is not square or too small.
        """
        if aligned:
            return whole_face(picture, name, self.image_size, self.finder if self.is_guided else None)
        return cut_face(picture, name, self.image_size, self.finder, 0 if face is None else face - 1)

    def images(self, faces: Sequence[Face]) -> Tensor:
        """What the network sees of faces, (N, 3, s, s) in [-1, 1]."""
        return torch.cat([shrunk(to_tensor(face.crop.image), self.image_size) for face in faces]).to(
            self.device
        )

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """(N, 3, s, s) in [-1, 1] -> latents (N, C, h, w) float32."""
        return self._in_groups(self.first_stage.encode, images)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) -> pictures (N, 3, s, s) float32 in [-1, 1]."""
        return self._in_groups(self.first_stage.decode, latents).clamp(-1, 1)

    @torch.inference_mode()
    def classify(self, images: Tensor) -> Tensor:
        """(N, 3, s, s) in [-1, 1] -> probabilities (N, emotions) float32. Raises: TalkfaceError: no classifier."""
        if self.classifier is None:
            raise TalkfaceError(f"the bundle {self.bundle.folder} has no emotion classifier")
        return self._in_groups(self.classifier, images, torch.float32)

    def sources(self, images: Tensor, given: Expression | None) -> list[Expression]:
        """What N pictures show: `given`, or what the classifier finds likeliest."""
        if given is not None:
            return [given] * len(images)
        return [single(label, self.emotions) for label in self.classify(images).argmax(1).tolist()]

    def _in_groups(
        self, function: Callable[[Tensor], Tensor], values: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        group, parts = self.editor.group, []
        for part in values.split(group):
            filled = torch.cat([part, part[-1:].expand(group - len(part), *part.shape[1:])])
            with autocast(self.device, dtype or self.dtype):
                parts.append(function(filled.to(self.device)).float()[: len(part)])
        return torch.cat(parts)

    # --- whole edits --------------------------------------------------------------------------------------

    def __call__(
        self,
        faces: Sequence[Face],
        to: Sequence[str | Expression],
        *,
        source: str | Expression | None = AUTO,
        settings: EditSettings | None = None,
        keep_going: Callable[[], None] | None = None,
    ) -> Iterator[list[EditedPicture]]:
        """Edit every face into every target; yields a list with one result for each target, face after face.

        Args:
            faces: from `cut`.
            to: targets, see `parse_expression`. All targets of a face share its inversion.
            source: what the faces show; "auto" asks the classifier, "none" tells nothing.
            settings: None = `defaults`.
            keep_going: called at every network call; raises to stop.

        Raises:
            TalkfaceError: unknown names, values out of range, "auto" without a classifier.
        """
        chosen = self.defaults if settings is None else settings
        chosen.check(self.editor.schedule)
        targets = [self.expression(text) if isinstance(text, str) else text for text in to]
        given = self.source_expression(source) if isinstance(source, str) else source
        return self._edited(list(faces), targets, given, chosen, keep_going)

    def _edited(
        self,
        faces: list[Face],
        targets: list[Expression],
        given: Expression | None,
        settings: EditSettings,
        keep_going: Callable[[], None] | None,
    ) -> Iterator[list[EditedPicture]]:
        group = self.editor.group
        for start in range(0, len(faces), group):
            some = faces[start : start + group]
            images = self.images(some)
            sources = self.sources(images, given)
            latents = self.encode(images)
            noisy = None
            drawn = [self.guides(to_tensor(face.crop.image), face.points, targets) for face in some]
            made, plain = [], []
            for place, target in enumerate(targets):
                under = self.encode(torch.cat([shrunk(one[place], self.image_size) for one in drawn]))
                told, shown = [target] * len(some), self.shown(latents, under)
                if settings.start == "picture" or not self.is_guided:
                    if noisy is None:  # all targets share one inversion
                        own = self.shown(latents)
                        noisy = self.editor.invert(latents, sources, settings, keep_going, own)
                else:
                    noisy = self.editor.invert(under, sources, settings, keep_going, shown)
                made.append(self.decode(self.editor.denoise(noisy, told, settings, keep_going, shown)))
                plain.append(self.decode(under))
            for index, (face, source) in enumerate(zip(some, sources, strict=True)):
                one = slice(index, index + 1)
                yield [
                    laid_over(face, drawn[index][place], made[place][one], plain[place][one], source, target)
                    for place, target in enumerate(targets)
                ]

    def shown(self, latents: Tensor, guides: Tensor | None = None) -> Mapping[str, Tensor] | None:
        """What a guided network is shown: the people's latents, and those of their guides (None: the pictures)."""
        if not self.is_guided:
            return None
        return {"reference": latents, "guide": latents if guides is None else guides}

    def guides(self, image: Tensor, points: np.ndarray | None, targets: Sequence[Expression]) -> list[Tensor]:
        """What changes are laid over, (1, 3, S, S) for each target: the face, animated if the network is guided.

        Args:
            image: the face (1, 3, S, S) in [-1, 1], any S; points: its landmarks (68, 2) in its pixels, None: unknown.
        """
        actions = [wanted_actions(target, self.emotions) for target in targets]
        if not self.is_guided or points is None:
            return [image] * len(targets)
        if self._expresser is None:
            self._expresser = Expresser(self.device)
        told = np.stack([np.zeros(len(ACTIONS)) if one is None else one for one in actions])
        drawn = self._expresser(image[0], points, told).cpu()
        return [image if one is None else drawn[place : place + 1] for place, one in enumerate(actions)]

    def interpolate(
        self,
        one: Face,
        other: Face,
        count: int,
        *,
        source: str = AUTO,
        settings: EditSettings | None = None,
        keep_going: Callable[[], None] | None = None,
    ) -> list[np.ndarray]:
        """`count` uint8 (s, s, 3) faces from one to the other, both included (thesis section 4.3.5).

        Both are inverted to t_0, their latents there interpolated spherically, and denoised under what lies between
        their sources. The first stage is not laid over anything: between two photographs there is no photograph, and
        nobody is shown to a network that could be shown a person.

        Raises:
            TalkfaceError: fewer than 2, or as `__call__`.
        """
        if count < 2:
            raise TalkfaceError(f"frames: {count}; allowed are 2 or more, both pictures included")
        chosen = self.defaults if settings is None else settings
        chosen.check(self.editor.schedule)
        images = self.images([one, other])
        sources = self.sources(images, self.source_expression(source))
        ends = self.editor.invert(self.encode(images), sources, chosen, keep_going)
        shares = [index / (count - 1) for index in range(count)]
        between = torch.stack([slerp(ends[0], ends[1], share) for share in shares])
        told = [blend_expressions(sources[0], sources[1], share) for share in shares]
        return list(to_uint8(self.decode(self.editor.denoise(between, told, chosen, keep_going))))

    def reconstruct(
        self,
        images: Tensor,
        *,
        source: str = AUTO,
        settings: EditSettings | None = None,
        cycle: bool = True,
        keep_going: Callable[[], None] | None = None,
    ) -> Mapping[str, Tensor]:
        """What is lost on the way: pictures (N, 3, s, s) by name.

        `first_stage`: encoded and decoded. `cycle`: also inverted, and denoised with the source's own expression.
        """
        latents = self.encode(images)
        made = {"first_stage": self.decode(latents)}
        if cycle:
            chosen = self.defaults if settings is None else settings
            told = self.sources(images, self.source_expression(source))
            back = self.editor.edit(latents, told, told, chosen, keep_going, self.shown(latents))
            made["cycle"] = self.decode(back)
        return made
