"""What the comparisons with other programs share: reading their checkpoints into float32 models, and perplexity.

Every model here ends as a transformers model that computes in float32, whatever it was stored in, so that differences
between programs are differences between weights and not between arithmetics.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import resource
import sys

# The other programs look for newer versions and compile kernels when they start; neither belongs in a measurement.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(os.cpu_count()))

import tokenizers
import torch


def take_stdout():
    """Standard output for the caller alone: whatever anyone else prints there from now on goes to standard error.

    GPTQModel writes messages and progress bars to standard output, some of them on streams it opened itself.
    """
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return stream


def token_ids(folder, text_file, max_tokens=None):
    """The ids of a whole text without added special tokens, as int64 [tokens].

    By the tokenizers library itself: transformers 5 rebuilds Llama's tokenizer from its own idea of it, and then loses
    characters that the vocabulary lacks.
    """
    text = pathlib.Path(text_file).read_text(encoding="utf-8")
    tokenizer = tokenizers.Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    return torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids[:max_tokens])


def calibration_windows(folder, text_file, count, length):
    """The first `count` windows of a text, int64 [count, length], as `gptq quantize --sampling first` takes them; fails if it is too short."""
    ids = token_ids(folder, text_file)
    if len(ids) < count * length:
        raise SystemExit(f"{text_file} has {len(ids)} tokens, {count} windows of {length} need {count * length}")
    return ids[: count * length].reshape(count, length)


def quantizer_arguments(description):
    """A parser of what all quantizers are told, with the defaults of the comparisons."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--calib", required=True)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--nsamples", type=int, default=32)
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--asym", action="store_true")
    return parser


def report(seconds, *packages):
    """One JSON object: the time, the peak resident memory in bytes, and the versions of packages."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return json.dumps({"seconds": seconds, "peak_bytes": peak_bytes, **versions})


@torch.inference_mode()
def perplexity(model, ids, seqlen):
    """exp of the mean negative log-likelihood over windows of `seqlen` that do not overlap.

    Every token of a window but its first is scored; a last, shorter window counts if it has at least two tokens.
    Returns (perplexity, scored tokens).
    """
    total, scored = 0.0, 0
    for window in ids.split(seqlen):
        if len(window) < 2:
            continue
        logits = model(window[None]).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, window[1:], reduction="none")
        total += losses.double().sum().item()
        scored += len(losses)
    return float(torch.tensor(total / scored, dtype=torch.float64).exp()), scored


def quantization_settings(folder):
    """The quantization_config of the folder's config.json, or None for a float model."""
    return json.loads((pathlib.Path(folder) / "config.json").read_text()).get("quantization_config")


def load_float(folder):
    """An unquantized folder in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def in_float32(model):
    """The same model with every module in float32, the quantized linears' scales included.

    Their kernel dequantizes in the type of the scales: left in half precision it rounds every weight a second time.
    Module by module, because transformers refuses to convert a quantized model as a whole.
    """
    for module in model.modules():
        torch.nn.Module.float(module)
    return model.eval()


def load_by_gptqmodel(folder):
    """A GPTQ folder through GPTQModel's loader and its portable torch kernel, which unpacks in every forward pass."""
    from gptqmodel import BACKEND, GPTQModel

    loaded = GPTQModel.load(str(folder), device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=torch.float16)
    return in_float32(loaded.model)


def load_by_transformers(folder):
    """A quantized folder through transformers, with the linears of GPTQModel (by optimum) or compressed-tensors.

    Left to itself it takes the fastest CPU kernel, which computes in bfloat16 or int8; the torch kernel is asked for.

    Asymmetric compressed-tensors are dequantized while loading, which rounds the weights to half precision: the other
    way, to load the packed tensors and dequantize in float32, fails on packed zeros (transformers 5.23, with
    compressed-tensors 0.20).
    """
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig, GPTQConfig

    settings = quantization_settings(folder)
    if settings["quant_method"] == "gptq":
        reading = GPTQConfig(bits=settings["bits"], backend="gptq_torch")
    else:
        symmetric = all(group["weights"]["symmetric"] for group in settings["config_groups"].values())
        reading = CompressedTensorsConfig(dequantize=not symmetric)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map="cpu", quantization_config=reading
    )
    return in_float32(model)


def load(folder):
    """A folder of any kind, by the program that knows it best."""
    settings = quantization_settings(folder)
    if settings is None:
        return load_float(folder)
    by_transformers = settings["quant_method"] == "compressed-tensors"
    return load_by_transformers(folder) if by_transformers else load_by_gptqmodel(folder)


@torch.inference_mode()
def round_to_nearest_(model, bits, group_size):
    """Replaces the weights of every linear of the decoder's blocks by their nearest symmetric grid points, in place.

    The baseline that a calibrated method has to beat: one scale for a group of input features, 2·max|w| / (2^bits − 1),
    stored in half precision; the zero is 2^(bits−1). `group_size` −1 is one group a row.
    """
    highest, zero = 2**bits - 1, 2 ** (bits - 1)
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or ".layers." not in f".{name}":
            continue
        weight = module.weight
        groups = weight.split(weight.shape[1] if group_size == -1 else group_size, dim=1)
        rounded = []
        for group in groups:
            scale = (2 * group.abs().amax(dim=1, keepdim=True) / highest).half().float()
            scale[scale == 0] = 1
            rounded.append(scale * ((group / scale).round() + zero).clamp(0, highest).sub(zero))
        module.weight.copy_(torch.cat(rounded, dim=1))
    return model
