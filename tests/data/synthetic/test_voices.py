"""Synthesized speech: times cover the sound, splits are disjoint, everything repeats."""

import numpy as np
import pytest

from talkface.data.synthetic.phonemes import PHONEMES, VOWELS, from_ipa, split_stress
from talkface.data.synthetic.sentences import sentence
from talkface.data.synthetic.voices import (
    FAMILIES,
    HELD_OUT_FAMILY,
    SAMPLE_RATE,
    Voice,
    available_families,
    speak,
)
from talkface.errors import TalkfaceError

TEXT = "Bob painted my big map."
pytestmark = pytest.mark.skipif("espeak" not in available_families(), reason="needs espeakng-loader")


@pytest.fixture(params=[f for f in FAMILIES if f in available_families()])
def utterance(request):
    return speak(FAMILIES[request.param].all()[0], TEXT)


def test_phonemes_are_in_order_and_cover_the_sound(utterance):
    starts = [p[1] for p in utterance.phonemes]
    ends = [p[2] for p in utterance.phonemes]
    assert all(s < e for s, e in zip(starts, ends, strict=True))
    assert all(e <= s + 1e-6 for e, s in zip(ends[:-1], starts[1:], strict=True))
    assert starts[0] >= 0 and ends[-1] <= utterance.duration
    spoken = np.zeros(len(utterance.samples), dtype=bool)
    for start, end in zip(starts, ends, strict=True):
        spoken[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] = True
    energy = utterance.samples.astype(float) ** 2
    assert energy[spoken].sum() > 0.97 * energy.sum()
    assert {split_stress(p[0])[0] for p in utterance.phonemes} <= set(PHONEMES)


def test_stops_are_quieter_than_vowels(utterance):
    def level(name_set):
        parts = [
            utterance.samples[int(a * SAMPLE_RATE) : int(b * SAMPLE_RATE)]
            for s, a, b in utterance.phonemes
            if split_stress(s)[0] in name_set
        ]
        return np.sqrt(np.mean(np.concatenate(parts) ** 2))

    assert level(VOWELS) > 1.5 * level(("P", "T", "B", "D"))


def lag_of(measured, sentences, symbols):
    """Milliseconds by which the times of `symbols` are late against what is `measured` in the sound every 5 ms."""
    lags = np.arange(-60, 61, 5)
    fits = []
    for said in sentences:
        levels = measured(said.samples[: len(said.samples) // 80 * 80].reshape(-1, 80))
        times = (np.arange(len(levels)) + 0.5) / 200
        for lag in lags:
            at = times + lag / 1000
            inside = sum(((at >= a) & (at < b) for s, a, b in said.phonemes if s in symbols), at < 0)
            fits.append(np.corrcoef(levels, inside)[0, 1] if inside.std() else 0.0)
    return lags[np.reshape(fits, (len(sentences), -1)).mean(0).argmax()]


@pytest.mark.parametrize("family", [f for f in FAMILIES if f in available_families()])
def test_times_are_those_of_the_sound(family):
    """Stops begin where the sound stops (lips and tongue close there, not at the burst); sibilants where it hisses."""
    split = "test" if family == HELD_OUT_FAMILY else "train"
    voices = FAMILIES[family].all()[:2]
    sentences = [speak(voice, sentence(k, split)) for voice in voices for k in range(12)]

    def silence(steps):
        return -np.log(np.square(steps).mean(1) + 1e-6)

    def hiss(steps):
        power = np.abs(np.fft.rfft(steps * np.hanning(80))) ** 2
        return np.log(power[:, 20:].sum(1) + 1e-6) - np.log(power[:, 1:6].sum(1) + 1e-6)

    assert abs(lag_of(silence, sentences, ("P", "T", "K", "CH"))) <= 15
    assert abs(lag_of(hiss, sentences, ("S", "Z", "SH", "ZH"))) <= 15


def test_the_right_words_are_said(utterance):
    said = [split_stress(p[0])[0] for p in utterance.phonemes]
    assert said[0] == "B" and said[1] in ("AA", "AO") and said[2] == "B" and said[-1] == "P"


def test_sound_format_and_repeatability(utterance):
    assert utterance.samples.dtype == np.float32
    assert np.abs(utterance.samples).max() == pytest.approx(0.7, abs=0.01)
    voice = next(v for v in FAMILIES[utterance.voice.split("/")[0]].all() if v.name == utterance.voice)
    speak.cache_clear()
    again = speak(voice, TEXT)
    assert np.array_equal(again.samples, utterance.samples) and again.phonemes == utterance.phonemes


def test_splits_share_no_voice():
    train = Voice.list("train", families=("espeak",))
    assert len({v.name for v in train}) == len(train) >= 20
    with pytest.raises(TalkfaceError, match=HELD_OUT_FAMILY):
        Voice.list("train", families=(HELD_OUT_FAMILY,))
    with pytest.raises(TalkfaceError, match="split"):
        Voice.list("valid")


def test_speakers_of_a_family_differ():
    first, second = (speak(v, TEXT) for v in Voice.list("train", families=("espeak",))[:2])
    assert len(first.samples) != len(second.samples) or not np.allclose(first.samples, second.samples)


def test_nothing_to_say_is_an_error():
    with pytest.raises(TalkfaceError, match="no sound"):
        speak(Voice.list("train", families=("espeak",))[0], "...")


def test_missing_flite_names_the_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TalkfaceError, match="apt-get install flite"):
        FAMILIES["flite"].all()


def test_sentences_of_the_splits_are_disjoint_and_repeat():
    train = {sentence(i, "train") for i in range(3000)}
    test = {sentence(i, "test") for i in range(3000)}
    assert not train & test
    assert len(train) > 2500
    assert sentence(17, "test") == sentence(17, "test")


def test_ipa_reader():
    assert [s for s, _, _ in from_ipa("plˈeɪs tʃˈɑːɹ")] == ["P", "L", "EY1", "S", "CH", "AA1", "R"]


def test_every_training_voice_repeats():
    for voice in Voice.list("train", families=("espeak",)):
        first, second = (voice.synthesize("She chose five thick shoes.")[0] for _ in range(2))
        assert np.array_equal(first, second), voice.name
