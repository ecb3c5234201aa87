"""The families of transformers that are taken, by model_type.

Of others it is said why they are not.
"""

# They are values of model_type. Tests load, check and probe each one at tiny size.
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox", "phi3", "gemma", "gemma2")
FAMILIES += ("gemma3_text", "olmo", "olmo2", "olmo3", "smollm3", "ministral3", "granite", "cohere")
FAMILIES += ("cohere2", "stablelm", "phi", "falcon", "mixtral", "qwen2_moe", "qwen3_moe", "glm")
FAMILIES += ("deepseek_v2", "deepseek_v3", "glm4", "llama4_text", "starcoder2", "gpt_oss")
FAMILIES += ("granitemoe", "phimoe", "exaone4", "nemotron", "seed_oss", "hunyuan_v1_dense")
FAMILIES += ("ernie4_5", "arcee", "apertus", "helium", "opt", "bloom", "mpt")
# Why a family is none of these, by model_type; a model with images has its text part's name.
TEXT_PARTS = {"gemma3": "gemma3_text", "mistral3": "ministral3 or mistral", "llama4": "llama4_text"}
WHY_NOT = {
    **dict.fromkeys(
        ("bert", "roberta", "modernbert", "albert"), "a masked model, which writes no text"
    ),
    **dict.fromkeys(
        ("t5", "mt5", "umt5", "bart", "mbart", "pegasus", "led"), "an encoder and decoder"
    ),
    **dict.fromkeys(("mamba", "mamba2", "rwkv", "falcon_mamba"), "recurrent: it has no positions"),
    **dict.fromkeys(
        ("jamba", "bamba", "falcon_h1", "granitemoehybrid", "qwen3_next", "zamba2", "lfm2"),
        "partly recurrent: its cache does not repeat for many questions",
    ),
    "gptj": "its rotary table is built in and not checked here",
}
