"""The model and tokenizer that a run starts from, and what is wrong with them for it.

Everything that can be found out without weights is: a 70B checkpoint takes minutes to load. Build
TRL's config before loading: it tells transformers about DeepSpeed and the process's own device.
"""

import importlib.util
from typing import Any

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.seeding import derive_seed
from pgenrm.train.recipe import LoraSpec, ModelSpec

try:
    import torch
    from huggingface_hub.errors import HFValidationError
    from peft import LoraConfig, PeftConfig, PeftModel
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        PreTrainedTokenizerBase,
    )

    from pgenrm.engines.checkpoint import find_file
except ImportError as error:
    raise MissingExtraError("train", "training") from error

LOAD_ERRORS = (OSError, ValueError, KeyError, HFValidationError)
ADAPTER_FILE = "adapter_config.json"
SPECIAL = ("bos", "eos", "pad")


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """Load the tokenizer.

    Raises:
        InputError: there is none.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            spec.tokenizer_source, revision=spec.revision if spec.tokenizer is None else None
        )
    except LOAD_ERRORS as error:
        raise InputError(f"no tokenizer at {spec.tokenizer_source}: {error}") from error
    if tokenizer.eos_token is None:
        raise InputError(
            f"the tokenizer of {spec.tokenizer_source} has no end token; set eos_token in its "
            "tokenizer_config.json, or the model never learns to stop"
        )
    return tokenizer


def load_model(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase, seed: int) -> Any:
    """Load the weights, or draw those of a new model by the seed.

    A `path` that is an adapter comes as a peft model that trains on; the adapters that `lora` asks
    for are TRL's to add, see `lora_config`.

    Raises:
        InputError: they cannot be loaded.
    """
    if spec.path is None:
        config = model_config(spec, tokenizer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))
            return _new_model(config, **_how(spec))
    base, revision = _base(spec)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            base, revision=revision, quantization_config=_quantisation(spec), **_how(spec)
        )
        if base != spec.path:
            model = PeftModel.from_pretrained(
                model, spec.path, revision=spec.revision, is_trainable=True
            )
    except LOAD_ERRORS as error:
        raise InputError(f"cannot load {spec.path}: {error}") from error
    return model


def model_config(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the shape of the model, without its weights.

    Raises:
        InputError: there is none, or transformers does not know it.
    """
    try:
        if spec.path is not None:
            base, revision = _base(spec)
            return AutoConfig.from_pretrained(base, revision=revision)
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in SPECIAL}
        return AutoConfig.for_model(**{"vocab_size": len(tokenizer), **ids, **(spec.config or {})})
    except LOAD_ERRORS as error:
        raise InputError(f"no shape of {spec.name}: {error}") from error


def check_model(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> int:
    """See that model, tokenizer and adapters go together; weights are not loaded.

    Returns:
        The number of parameters of the base model.

    Raises:
        InputError: the tokenizer has more tokens than the model, a LoRA target is missing, an
            adapter is asked for on top of one, or bitsandbytes is not installed.
    """
    config = model_config(spec, tokenizer)
    n_embedded = config.get_text_config().vocab_size
    if len(tokenizer) > n_embedded:
        raise InputError(
            f"the tokenizer of {spec.tokenizer_source} has {len(tokenizer)} tokens and "
            f"{spec.name} embeds {n_embedded}; use the tokenizer that belongs to it"
        )
    with torch.device("meta"):
        skeleton = _new_model(config)
    if spec.lora is not None:
        if spec.path is not None and _base(spec)[0] != spec.path:
            raise InputError(
                f"{spec.path} is an adapter, which is trained further as it is; remove lora (--set "
                "model.lora=), or merge it into its base first"
            )
        _check_targets(spec.lora, skeleton, spec.name)
    if spec.quantisation != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("quantisation nf4 needs bitsandbytes: pip install bitsandbytes")
    return sum(p.numel() for p in skeleton.parameters())


def lora_config(lora: LoraSpec | None) -> LoraConfig | None:
    """Return peft's config for the recipe's adapters."""
    if lora is None:
        return None
    targets = lora.target_modules
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft divides by the rank: any number
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def check_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """See that messages can be rendered.

    Raises:
        InputError: the tokenizer has no chat template.
    """
    if tokenizer.chat_template is None:
        raise InputError(
            f"the tokenizer of {name} has no chat template, and the rows are messages; use an "
            "instruction-tuned checkpoint, or put the template beside its tokenizer as "
            "chat_template.jinja"
        )


def context_window(config: Any) -> int | None:
    """Return how many tokens the model can attend to; None where its config does not say."""
    window: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return window


def _new_model(config: Any, **how: Any) -> Any:
    return AutoModelForCausalLM.from_config(config, **how)  # type: ignore[no-untyped-call]


def _how(spec: ModelSpec) -> dict[str, Any]:
    attention = {} if spec.attention is None else {"attn_implementation": spec.attention}
    return {"dtype": getattr(torch, spec.dtype), **attention}


def _base(spec: ModelSpec) -> tuple[str, str | None]:
    """Return the checkpoint that carries the weights, and its revision."""
    path = spec.path or ""
    if find_file(path, ADAPTER_FILE) is None:
        return path, spec.revision
    base = PeftConfig.from_pretrained(path, revision=spec.revision).base_model_name_or_path
    if not base:
        raise InputError(f"{path} is an adapter that names no base model")
    return base, None


def _quantisation(spec: ModelSpec) -> BitsAndBytesConfig | None:
    if spec.quantisation == "none":
        return None
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16,  # FSDP shards only what has the weights' dtype
    )


def _check_targets(lora: LoraSpec, model: torch.nn.Module, name: str) -> None:
    if isinstance(lora.target_modules, str):
        return
    layers = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    for target in lora.target_modules:
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            known = sorted({layer.rpartition(".")[2] for layer in layers})
            raise InputError(
                f"lora.target_modules: {name} has no linear layer {target!r}; it has "
                f"{', '.join(known)}"
            )
