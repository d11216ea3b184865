#!/usr/bin/env python3
"""Writes tests/golden/models: a tiny random model of each architecture, and what transformers computes with it.

    pip install torch transformers safetensors        (made with transformers 5.23, torch 2.15, on a CPU)
    python3 tests/golden/make_models.py [NAME...]

With names, only these folders are written.
Weights are drawn large enough that rotation, windows, norms and biases all show in the logits. Each folder is read back
with from_pretrained before anything is computed, so the configuration files are those that transformers understands;
half of them are in the form that versions before 5 wrote.
"""
import json
import math
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, AutoModelForImageTextToText, Cohere2Config, CohereConfig, Exaone4Config, Gemma2Config, Gemma3Config,
                          Gemma3TextConfig,
                          GemmaConfig, Glm4Config, GlmConfig, GPTNeoXConfig, GraniteConfig, HunYuanDenseV1Config, LlamaConfig,
                          MinistralConfig, MistralConfig, MixtralConfig, NemotronConfig, Olmo2Config, Olmo3Config, OlmoConfig,
                          OlmoeConfig, OPTConfig, Phi3Config, PhiConfig, Qwen2_5_VLConfig, Qwen2Config, Qwen2MoeConfig,
                          Qwen3Config,
                          Qwen3MoeConfig, Qwen3VLMoeConfig, SeedOssConfig, SmolLM3Config, StableLmConfig, Starcoder2Config)

OUT = pathlib.Path(__file__).parent / "models"
SMALL = dict(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
             max_position_embeddings=64, bos_token_id=1, eos_token_id=None, pad_token_id=None)
OPT = dict(vocab_size=64, hidden_size=16, ffn_dim=24, num_hidden_layers=3, num_attention_heads=4,
           max_position_embeddings=40, bos_token_id=1, eos_token_id=None, pad_token_id=None)
PICTURES = dict(hidden_size=16, intermediate_size=24, num_heads=2, out_hidden_size=16, depth=1, patch_size=4)
MROPE = dict(rope_type="default", rope_theta=500.0, mrope_section=[1, 1, 2])
TWO = {**SMALL, "num_hidden_layers": 2}
WIDE_HEADS = {**TWO, "num_attention_heads": 2}
WINDOWED_FIRST = ["sliding_attention", "full_attention"]
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)

# name: (config, dtype of the weights, changes to config.json that make it an older one or None)
MODELS = {
    "llama": (LlamaConfig(**SMALL), torch.float32, {"rope_theta": 10000.0, "rope_scaling": None}),
    "llama3": (LlamaConfig(**SMALL, num_key_value_heads=2, head_dim=8, attention_bias=True, mlp_bias=True,
                           tie_word_embeddings=True, rope_parameters=LLAMA3), torch.bfloat16, None),
    "llama-linear": (LlamaConfig(**SMALL, num_key_value_heads=1, tie_word_embeddings=True,
                                 rope_parameters=dict(rope_type="linear", rope_theta=100.0, factor=4.0)),
                     torch.float16, {"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "mistral": (MistralConfig(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=5), torch.float32,
                {"rope_theta": 10000.0}),
    "qwen2": (Qwen2Config(**SMALL, num_key_value_heads=2, use_sliding_window=True, sliding_window=6,
                          max_window_layers=1, tie_word_embeddings=True,
                          rope_parameters=dict(rope_type="default", rope_theta=1000.0)), torch.float32, None),
    "qwen3": (Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=12, attention_bias=True,
                          rope_parameters=dict(rope_type="default", rope_theta=1000.0)), torch.float16, None),
    "gemma3": (Gemma3TextConfig(**SMALL, num_key_value_heads=1, head_dim=8, sliding_window=4, query_pre_attn_scalar=20,
                                layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
               torch.bfloat16, None),
    "gemma3-older": (Gemma3TextConfig(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=4,
                                      query_pre_attn_scalar=8, sliding_window_pattern=2, attention_bias=True,
                                      rope_parameters={
                                          "full_attention": dict(rope_type="linear", rope_theta=1000.0, factor=8.0),
                                          "sliding_attention": dict(rope_type="default", rope_theta=50.0)}),
                     torch.float32,
                     {"layer_types": ..., "sliding_window_pattern": 2, "rope_theta": 1000.0,
                      "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 50.0}),
    "opt": (OPTConfig(**OPT), torch.float16, None),
    "opt-projected": (OPTConfig(**OPT, do_layer_norm_before=False, word_embed_proj_dim=8), torch.float32, None),
    "opt-bare": (OPTConfig(**OPT, enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu",
                           tie_word_embeddings=False), torch.float32, None),
    "phi3": (Phi3Config(**SMALL, num_key_value_heads=2, sliding_window=7), torch.float32, None),
    "mixtral": (MixtralConfig(**SMALL, num_key_value_heads=2, head_dim=8, num_local_experts=4, num_experts_per_tok=2,
                              sliding_window=9), torch.bfloat16, None),
    "qwen2-moe": (Qwen2MoeConfig(**SMALL, num_key_value_heads=2, num_experts=5, num_experts_per_tok=2,
                                 moe_intermediate_size=8, shared_expert_intermediate_size=12, mlp_only_layers=[1]),
                  torch.float32, None),
    "qwen3-moe": (Qwen3MoeConfig(**SMALL, num_key_value_heads=2, head_dim=12, num_experts=6, num_experts_per_tok=3,
                                 moe_intermediate_size=8, norm_topk_prob=True, decoder_sparse_step=2), torch.float16,
                  None),
    "olmoe": (OlmoeConfig(**SMALL, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2), torch.float16, None),
    "granite": (GraniteConfig(**SMALL, num_key_value_heads=2, embedding_multiplier=3.0, attention_multiplier=0.4,
                              residual_multiplier=0.3, logits_scaling=5.0, tie_word_embeddings=True), torch.float32,
                None),
    "smollm3": (SmolLM3Config(**SMALL, num_key_value_heads=2, no_rope_layers=[1, 0, 1],
                              rope_parameters=dict(rope_type="default", rope_theta=500.0)), torch.float16, None),
    "olmo2": (Olmo2Config(**SMALL, num_key_value_heads=2), torch.float32, None),
    "llama-yarn": (LlamaConfig(**SMALL, num_key_value_heads=2, head_dim=16,
                               rope_parameters=dict(rope_type="yarn", rope_theta=300.0, factor=4.0, beta_fast=8.0,
                                                    original_max_position_embeddings=16)), torch.float16, None),
    "phi": (PhiConfig(**SMALL, num_key_value_heads=2,
                      rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
            torch.float16, None),
    "gemma3-pictures": (Gemma3Config(text_config=dict(SMALL, num_key_value_heads=2, head_dim=8, sliding_window=4,
                                                      layer_types=["sliding_attention", "full_attention"] * 2,
                                                      num_hidden_layers=4),
                                     vision_config=dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                                                        num_attention_heads=2, image_size=8, patch_size=4),
                                     mm_tokens_per_image=4), torch.bfloat16, None),
    "qwen2-5-vl-older": (Qwen2_5_VLConfig(text_config=dict(SMALL, num_attention_heads=2, num_key_value_heads=1,
                                                           tie_word_embeddings=False, rope_parameters=MROPE),
                                          vision_config=dict(PICTURES, fullatt_block_indexes=[0])), torch.float16,
                         {"rope_theta": 500.0, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}),
    "qwen3-vl-moe": (Qwen3VLMoeConfig(text_config=dict(SMALL, num_key_value_heads=2, head_dim=8, num_experts=4,
                                                       num_experts_per_tok=2, moe_intermediate_size=12,
                                                       rope_parameters=MROPE),
                                      vision_config=dict(PICTURES, num_position_embeddings=16,
                                                         deepstack_visual_indexes=[0])), torch.float16, None),
    "gemma2": (Gemma2Config(**TWO, num_key_value_heads=2, head_dim=8, sliding_window=5, query_pre_attn_scalar=20,
                            attn_logit_softcapping=2.0, final_logit_softcapping=1.5), torch.bfloat16,
               {"layer_types": ..., "rope_theta": 10000.0}),
    "gemma": (GemmaConfig(**TWO, num_key_value_heads=1, head_dim=8), torch.bfloat16,
              {"hidden_act": "gelu", "rope_theta": 10000.0}),
    "phi3-longrope": (Phi3Config(**WIDE_HEADS, num_key_value_heads=1, original_max_position_embeddings=13,
                                 rope_parameters=dict(rope_type="longrope", rope_theta=300.0, partial_rotary_factor=0.75,
                                                      short_factor=[1.0, 1.2, 1.5], long_factor=[1.1, 3.0, 5.0])),
                      torch.float16, {"rope_theta": 300.0, "partial_rotary_factor": 0.75,
                                      "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.2, 1.5],
                                                       "long_factor": [1.1, 3.0, 5.0]}}),
    "llama-dynamic": (LlamaConfig(**{**TWO, "max_position_embeddings": 12}, num_key_value_heads=2, head_dim=8,
                                  rope_parameters=dict(rope_type="dynamic", rope_theta=100.0, factor=3.0)),
                      torch.float16, None),
    "glm": (GlmConfig(**TWO, num_key_value_heads=2, head_dim=8), torch.float16, None),
    "glm4": (Glm4Config(**TWO, num_key_value_heads=1, head_dim=8, attention_bias=False,
                        rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.75)),
             torch.float16, None),
    "gpt-neox": (GPTNeoXConfig(**WIDE_HEADS, rope_parameters=dict(rope_type="default", rope_theta=500.0,
                                                                  partial_rotary_factor=0.5)),
                 torch.float16, {"rotary_pct": 0.5, "rotary_emb_base": 500}),
    "gpt-neox-sequential": (GPTNeoXConfig(**TWO, use_parallel_residual=False, attention_bias=False,
                                          rope_parameters=dict(rope_type="default", rope_theta=500.0,
                                                               partial_rotary_factor=1.0)), torch.float16, None),
    "starcoder2": (Starcoder2Config(**TWO, num_key_value_heads=2, sliding_window=6), torch.float16, None),
    "stablelm": (StableLmConfig(**WIDE_HEADS, num_key_value_heads=1, use_qkv_bias=True), torch.float16, None),
    "cohere": (CohereConfig(**TWO, num_key_value_heads=2, logit_scale=0.4, attention_bias=True), torch.float16, None),
    "cohere2": (Cohere2Config(**TWO, num_key_value_heads=2, logit_scale=0.3, sliding_window=5,
                              layer_types=WINDOWED_FIRST), torch.float16, None),
    "olmo": (OlmoConfig(**TWO, num_key_value_heads=2), torch.float16, None),
    "olmo3": (Olmo3Config(**TWO, num_key_value_heads=2, sliding_window=6, layer_types=WINDOWED_FIRST,
                          rope_parameters={
                              "full_attention": dict(rope_type="yarn", rope_theta=500000.0, factor=4.0, beta_fast=8.0,
                                                     original_max_position_embeddings=16),
                              "sliding_attention": dict(rope_type="default", rope_theta=500000.0)}),
              torch.float16, {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 8.0,
                                                                    "original_max_position_embeddings": 16}}),
    "hunyuan": (HunYuanDenseV1Config(**TWO, num_key_value_heads=2, head_dim=8,
                                     rope_parameters=dict(rope_type="dynamic", rope_theta=100.0, factor=1.0, alpha=5.0)),
                torch.float16, None),
    "ministral": (MinistralConfig(**TWO, num_key_value_heads=2, head_dim=8, sliding_window=5,
                                  layer_types=WINDOWED_FIRST), torch.float16, None),
    "seed-oss": (SeedOssConfig(**TWO, num_key_value_heads=2, head_dim=8), torch.float16, None),
    "exaone4": (Exaone4Config(**TWO, num_key_value_heads=2, sliding_window=5, layer_types=WINDOWED_FIRST), torch.float16,
                None),
    "nemotron": (NemotronConfig(**TWO, num_key_value_heads=2, mlp_bias=True), torch.float16, None),
}
GROWING = ("phi3-longrope", "llama-dynamic")  # whose rotation depends on the length of the text
ONE_PLUS = ("gemma", "gemma2", "gemma3", "gemma3_text", "nemotron")


def randomize(model, generator):
    norm_mean = 0.0 if model.config.model_type in ONE_PLUS else 1.0
    for name, p in model.named_parameters():
        draw = torch.randn(p.shape, generator=generator)
        if p.dim() == 2 and "embed" in name:
            draw = draw * (0.3 if "positions" not in name else 0.2)
        elif p.dim() >= 2:  # three: the experts of a block
            draw = draw * (1.5 / math.sqrt(p.shape[-1]))
        elif name.endswith("norm.weight"):
            draw = norm_mean + 0.3 * draw
        else:
            draw = draw * 0.3
        p.data.copy_(draw)


def auto_class(config):
    return AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM


def write(folder, config, dtype, older, generator):
    model = auto_class(config).from_config(config)
    randomize(model, generator)
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    if older is not None:
        settings = {**settings.pop("text_config", {}), **settings}
        del settings["rope_parameters"]
        settings["torch_dtype"] = settings.pop("dtype")
        settings.update(older)
        settings = {k: v for k, v in settings.items() if v is not ...}
    path.write_text(json.dumps(settings, indent=1) + "\n")


def store_head_instead_of_embedding(folder):
    path = str(folder / "model.safetensors")
    tensors = load_file(path)
    if "lm_head.weight" not in tensors:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    del tensors["model.embed_tokens.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


def rounded(values):
    return [round(v, 5) for v in values.double().tolist()]


def logits_of(model, ids):
    """Of a text by itself: dynamic scaling goes by the longest text so far, until it sees a short one."""
    model(torch.tensor([ids[:1]]))
    return model(torch.tensor([ids])).logits[0]


def window_nll(model, ids):
    logits = logits_of(model, ids).double()
    return torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum").item()


def perplexity(model, ids, seqlen, bos):
    windows = [ids[i:i + seqlen] for i in range(0, len(ids), seqlen)]
    windows = [([bos] if bos is not None else []) + w for w in windows if len(w) >= 2]
    scored = sum(len(w) - 1 for w in windows)
    nll = sum(window_nll(model, w) for w in windows) / scored
    return {"seqlen": seqlen, "bos": bos, "given": len(ids), "tokens": scored, "nll": nll, "perplexity": math.exp(nll)}


def greedy(model, ids, count, cache=None):
    given = ids
    logits_of(model, ids[:1])
    for _ in range(count):
        out = model(torch.tensor([given]), cache=cache, use_cache=True)
        cache, given = out.cache, [out.logits[0, -1].argmax().item()]
        ids = ids + given
    return ids[-count:]


def cached(model, ids, piece):
    """The logits after each piece of a text. Phi-3 reads the text again where a piece makes it a long one."""
    logits_of(model, ids[:1])
    rows, cache, limit = [], None, getattr(model.config, "original_max_position_embeddings", len(ids))
    for first in range(0, len(ids), piece):
        last = min(first + piece, len(ids))
        if first <= limit < last:
            first, cache = 0, None
        out = model(torch.tensor([ids[first:last]]), cache=cache, use_cache=True)
        cache = out.cache
        rows.append(out.logits[0, -1])
    return rows


STAGES = [("q_proj", "qkv_proj", "query_key_value"), ("o_proj", "out_proj", "dense"),
          ("up_proj", "gate_up_proj", "fc1", "dense_h_to_4h", "c_fc"), ("down_proj", "fc2", "dense_4h_to_h", "c_proj")]


def stage_inputs(model, ids, block):
    """The input of each stage's first linear layer in one block, at the last token; for experts only the attention's."""
    stages = {}
    hooks = []
    logits_of(model, ids[:1])
    known = {layer for layers in STAGES for layer in layers}
    for name, module in model.named_modules():
        short = name.rsplit(".", 1)[-1]
        if f"layers.{block}." in name and "expert" not in name and short in known:
            hooks.append(module.register_forward_pre_hook(
                lambda _, inputs, short=short: stages.update({short: rounded(inputs[0].reshape(len(ids), -1)[-1])})))
    model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return [stages[n] for names in STAGES for n in names if n in stages]


@torch.no_grad()
def main():
    for number, (name, (config, dtype, older)) in enumerate(MODELS.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        generator = torch.Generator().manual_seed(number)
        folder = OUT / name
        write(folder, config, dtype, older, generator)
        model = auto_class(config).from_pretrained(folder, dtype=torch.float32).eval()
        if name == "llama-linear":
            store_head_instead_of_embedding(folder)
        ids = torch.randint(0, 64, (33,), generator=generator).tolist()
        short = ids[:20]
        expected = {
            "input_ids": ids,
            "logits_of": len(short),
            "logits": [rounded(row) for row in logits_of(model, short)],
            "generated": greedy(model, short, 12),
            "stage_block": 1,
            "stage_inputs": stage_inputs(model, short, 1),
            "perplexity": [perplexity(model, ids, 32, None), perplexity(model, ids, 10, None),
                           perplexity(model, ids, 12, 1), perplexity(model, ids[:8], 16, None)],
        }
        if name in GROWING:
            expected["pieces"] = {n: [rounded(row) for row in cached(model, short, n)] for n in (1, 3, 13)}
        (folder / "expected.json").write_text(json.dumps(expected) + "\n")
        print(name, [p["perplexity"] for p in expected["perplexity"]])


main()
