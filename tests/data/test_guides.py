"""Guides of training pairs, on rendered people: nearer to the target than the reference is, and as wrong as asked."""

import pickle

import numpy as np
import pytest
import torch

from talkface.data import Corpus
from talkface.data.synthetic.clips import SyntheticRecipe, prepare_synthetic
from talkface.data.talking import TalkingDataset


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    recipe = SyntheticRecipe(
        identities=4,
        clips_per_identity=1,
        fps=5,
        size=96,
        max_seconds=2,
        val_share=0,
        test_share=0,
        families=("espeak",),
    )
    prepare_synthetic(folder, recipe, report=lambda line: None)
    return Corpus(folder, "train")


def talking(corpus, error):
    return TalkingDataset(corpus, image_size=96, guide_error=error, samples_per_clip=4, seed=1)


def errors(dataset, name):
    """Squared error around the mouth against the target, one number an item."""
    items = [dataset[index] for index in range(len(dataset))]
    return np.array([float((item[name] - item["target"])[:, 56:84, 30:66].square().mean()) for item in items])


def test_exact_guides_are_nearer_to_the_target_than_the_reference(rendered):
    dataset = talking(rendered, 0.0)
    assert errors(dataset, "guide").mean() < 0.75 * errors(dataset, "reference").mean()


def test_errors_are_made_on_purpose_and_grow_with_their_strength(rendered):
    means = [errors(talking(rendered, strength), "guide").mean() for strength in (0.0, 1.0, 4.0)]
    assert means[0] < means[1] < means[2]


def test_what_is_seen_of_the_target_is_not_touched(rendered):
    item = talking(rendered, 1.0)[3]
    seen = ~item["mask"].bool().expand_as(item["target"])
    assert torch.equal(item["guide"][seen], item["target"][seen])


def test_guides_depend_on_the_key_only_and_travel_to_workers(rendered):
    dataset = talking(rendered, 1.0)
    first = dataset[2]["guide"]
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[2]["guide"], first)


def test_sequences_have_a_guide_for_every_frame(rendered):
    item = talking(rendered, 0.0).as_sequences(3)[0]
    assert item["guide"].shape == item["target"].shape == (3, 3, 96, 96)
