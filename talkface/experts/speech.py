"""Speech encoders: sound -> one feature vector per few milliseconds, behind one interface.

All read mono float sound at 16 kHz in [-1, 1]; feature i of a sequence belongs to the time (i + 0.5) /
feature_rate.

    ArticulationEncoder      the bundled one: log-mel -> convolutions -> mouth actions at 50 Hz
    LogMelEncoder            log-mel spectra, as they are or projected
    Wav2Vec2Encoder          wav2vec 2.0 and its relatives through transformers: the encoder of the paper
    PhonemePosteriorEncoder  phoneme posteriors of hama's recogniser
"""

from talkface.experts.speech_articulation import ArticulationEncoder, LogMelEncoder, mel_filters
from talkface.experts.speech_base import SpeechEncoder
from talkface.experts.speech_reference import PhonemePosteriorEncoder, Wav2Vec2Encoder

__all__ = [
    "ArticulationEncoder",
    "LogMelEncoder",
    "PhonemePosteriorEncoder",
    "SpeechEncoder",
    "Wav2Vec2Encoder",
    "mel_filters",
]
