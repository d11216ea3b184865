#!/usr/bin/env python3
"""Writes tests/golden/finetune.json: the losses of LoRA training by PEFT and PyTorch, from a stored adapter.

    pip install torch transformers peft safetensors   (made with peft 0.21, transformers 5.24, torch 2.15, on a CPU)
    python3 tests/golden/make_finetune.py
"""
import json
import math
import pathlib

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
STEPS, RATE = 12, 0.02
READ = [1, 17, 5, 60, 33, 2, 48, 9, 21, 54, 40, 12]
HELD_OUT = [1, 17, 5, 60, 33, 2, 48, 30, 7, 54, 40, 3]


def main():
    base = AutoModelForCausalLM.from_pretrained(HERE / "models" / "llama", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, HERE / "adapters" / "plain", is_trainable=True)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=RATE, eps=1e-12)

    def loss(ids):
        return model(torch.tensor([ids]), labels=torch.tensor([ids])).loss

    with torch.no_grad():
        before = loss(HELD_OUT).item()
    losses = []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        optimizer.zero_grad()
        value = loss(READ)
        losses.append(value.item())
        value.backward()
        optimizer.step()
    with torch.no_grad():
        after = loss(HELD_OUT).item()
    found = {"base": "llama", "adapter": "plain", "rate": RATE, "read": READ, "held_out": HELD_OUT,
             "losses": losses, "held_out_before": before, "held_out_after": after}
    (HERE / "finetune.json").write_text(json.dumps(found, indent=1) + "\n")


main()
