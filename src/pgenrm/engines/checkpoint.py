"""Load a checkpoint for the `local` engine: weights, tokenizer, adapter, device and dtype.

Deliberately left out: quantisation and compilation; what a checkpoint itself declares is honoured.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgenrm.errors import EngineError, InputError, MissingExtraError

try:
    import torch
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
except ImportError as error:
    raise MissingExtraError("local", "the local engine") from error

TEMPLATE_FILE = "pgenrm_prompt.jinja"
"""The prompt template that a checkpoint may carry."""

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with all that is needed to ask it."""

    model: Any
    """A causal language model in evaluation mode, inside peft's where there is an adapter."""
    tokenizer: Any
    eos_ids: frozenset[int]
    """Tokens that end a completion: the generation config's and the tokenizer's."""
    context_window: int | None
    template_file: Path | None
    identity: str
    """Differs when dtype or files do, also under the same name."""


def load_checkpoint(
    model: str,
    *,
    adapter: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Load a model directory or hub id; one that is itself an adapter brings its base model.

    A tokenizer or a prompt template that comes with the adapter counts before the model's.

    Args:
        model: directory or hub id.
        adapter: directory or hub id of a LoRA adapter on top of it.
        device: as torch names it, or `auto` to spread over all GPUs; see `default_device`.
        dtype: one of `DTYPES`; see `default_dtype`.
        trust_remote_code: run code that comes with the checkpoint.

    Raises:
        EngineError: a part is missing or cannot be loaded.
        InputError: the dtype is none of `DTYPES`.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    for source in filter(None, (model, adapter)):
        _check_source(source)
    device = device or default_device()
    try:
        adapter_config = None if adapter else find_file(model, "adapter_config.json")
        if adapter_config is not None:
            model, adapter = _base_model(adapter_config), model
        sources = [adapter, model] if adapter else [model]
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
        dtype = dtype or default_dtype(device, config.dtype)
        network = _load_weights(model, adapter, device, dtype, trust_remote_code)
        tokenizer = AutoTokenizer.from_pretrained(
            adapter if adapter and find_file(adapter, "tokenizer_config.json") else model,
            trust_remote_code=trust_remote_code,
        )
        templates = [find_file(source, TEMPLATE_FILE) for source in sources]
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise EngineError(
            f"cannot load {model}{f' with adapter {adapter}' if adapter else ''} on {device}: "
            f"{error}\nGive a directory that holds a checkpoint, or fetch the model first with "
            "`hf download`."
        ) from error
    if tokenizer.chat_template is None:
        raise EngineError(
            f"the tokenizer of {model} has no chat template; use an instruction-tuned checkpoint, "
            "or put the template that it was trained with beside it as chat_template.jinja"
        )
    return Checkpoint(
        model=network,
        tokenizer=tokenizer,
        eos_ids=_eos_ids(network.generation_config.eos_token_id, tokenizer.eos_token_id),
        context_window=getattr(config.get_text_config(), "max_position_embeddings", None),
        template_file=next(filter(None, templates), None),
        identity=json.dumps([dtype, *map(_fingerprint, sources)]),
    )


def find_file(source: str, name: str) -> Path | None:
    """Find a file of a checkpoint directory or hub repository; None where it has none."""
    if Path(source).is_dir():
        path = Path(source, name)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(source, name))
    except EntryNotFoundError:  # also when offline and not in the cache
        return None


def default_device() -> str:
    """Return the best device at hand: CUDA, else MPS, else CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def default_dtype(device: str, stored: torch.dtype | None) -> str:
    """Choose the dtype to compute in.

    A GPU gets bfloat16, which does not overflow as float16 can; only where CUDA would emulate it,
    float16. A CPU gets float32, unless the weights are stored in bfloat16 and it multiplies these
    natively: that was measured at 2.1 to 2.7 times the speed of float32 in reading prompts and 0.9
    to 1.6 times in writing, but at half of it in reading without AVX512-BF16.

    Args:
        device: as torch names it, or `auto`.
        stored: dtype of the stored weights.
    """
    if device == "auto":
        device = default_device()
    if device.startswith("cuda"):
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if is_native else "float16"
    if device.startswith("mps"):
        return "bfloat16"
    ask = getattr(torch.cpu, "get_capabilities", dict)  # older torch cannot tell
    is_native = bool({"avx512_bf16", "amx_bf16"} & {name for name, has in ask().items() if has})
    return "bfloat16" if is_native and stored is torch.bfloat16 else "float32"


def _check_source(source: str) -> None:
    if not Path(source).is_dir():
        try:
            validate_repo_id(source)
        except HFValidationError as error:
            raise EngineError(
                f"{source!r} is no directory; give one that holds a checkpoint, or a hub id"
            ) from error


def _base_model(adapter_config: Path) -> str:
    base = json.loads(adapter_config.read_text("utf-8")).get("base_model_name_or_path")
    if not base:
        raise EngineError(f"{adapter_config} names no base model; give model and adapter apart")
    return str(base)


def _load_weights(
    model: str, adapter: str | None, device: str, dtype: str, trust_remote_code: bool
) -> Any:
    network: Any
    report: Any
    network, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
        model,
        dtype=dtype,
        device_map=device,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):  # transformers makes random ones up
        raise EngineError(
            f"{model} lacks {len(missing)} weights, {missing[0]} among them; it was saved "
            "incompletely, or it is no causal language model"
        )
    if adapter is not None:
        network = PeftModel.from_pretrained(network, adapter)
        if network.active_peft_config.is_prompt_learning:
            raise EngineError(f"{adapter} is no LoRA; other kinds of adapter are not supported")
    return network.eval()


def _eos_ids(*declared: int | list[int] | None) -> frozenset[int]:
    ids: set[int] = set()
    for value in declared:
        ids.update(value if isinstance(value, list) else [] if value is None else [value])
    return frozenset(ids)


def _fingerprint(source: str) -> str:
    """Digest names, sizes and times of a checkpoint's files: training overwrites directories."""
    config = find_file(source, "adapter_config.json") or find_file(source, "config.json")
    files = sorted(config.parent.iterdir()) if config else []
    listing = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return hashlib.blake2b(repr(listing).encode(), digest_size=16).hexdigest()
