#!/usr/bin/env python3
"""Writes tests/golden/adapters: LoRA adapters as PEFT saves them, and what PEFT computes with them.

    pip install torch transformers peft safetensors   (made with peft 0.21, transformers 5.24, torch 2.15, on a CPU)
    python3 tests/golden/make_adapters.py

The base models are those of tests/golden/models. Each adapter is read back by PEFT before anything is computed.
"""
import json
import pathlib

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
ATTENTION = ["q_proj", "v_proj"]
EVERY_LAYER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# name: (base model, settings of PEFT)
ADAPTERS = {
    "plain": ("llama", dict(r=4, lora_alpha=8, target_modules=ATTENTION)),
    "rank-stabilized": ("llama", dict(r=4, lora_alpha=6, use_rslora=True, target_modules=EVERY_LAYER)),
    "patterns": ("qwen2", dict(r=2, lora_alpha=4, target_modules=EVERY_LAYER,
                               rank_pattern={"down_proj": 3}, alpha_pattern={"layers.1.mlp.up_proj": 9})),
    "head": ("mistral", dict(r=2, lora_alpha=2, target_modules=["o_proj", "lm_head"])),
}
IDS = [1, 17, 5, 60, 33, 2, 48, 9, 21, 54, 40, 12]


def base_model(name):
    return AutoModelForCausalLM.from_pretrained(HERE / "models" / name, dtype=torch.float32)


def write(folder, base, settings, generator):
    model = get_peft_model(base_model(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data.copy_(0.3 * torch.randn(p.shape, generator=generator))
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": f"tests/golden/models/{base}"}
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


@torch.no_grad()
def main():
    generator = torch.Generator().manual_seed(20260101)
    for name, (base, settings) in ADAPTERS.items():
        folder = HERE / "adapters" / name
        write(folder, base, settings, generator)
        model = PeftModel.from_pretrained(base_model(base), folder).eval()
        logits = model(torch.tensor([IDS])).logits[0].double()
        expected = {"base": base, "input_ids": IDS, "logits": [[round(v, 5) for v in row] for row in logits.tolist()]}
        (folder / "expected.json").write_text(json.dumps(expected) + "\n")


main()
