"""The families of encoders: which transformers models are of which, and what is known of them without loading torch."""

SPEECH_TYPES = ("hubert", "wavlm", "wav2vec2", "data2vec-audio")
SPEECH_WINDOW = "30s+1s"  # by default

WHISPER_TYPES = ("whisper",)
WHISPER_WINDOWS = ("pad30", "short")
WHISPER_WINDOW = "pad30"  # by default
WHISPER_FRAME_SAMPLES = 320  # between the encoder's frames: two mel frames of 10 ms

# Each is tested to give a text the same rows alone and padded. Others don't (MobileBERT, ConvBERT: padding reaches the
# embeddings and convolutions of its neighbours), so that a new one needs its test.
TEXT_TYPES = (
    "albert",
    "bert",
    "camembert",
    "data2vec-text",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "ernie",
    "eurobert",
    "megatron-bert",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
)

FAMILIES = {"speech": SPEECH_TYPES, "whisper": WHISPER_TYPES, "text": TEXT_TYPES}
