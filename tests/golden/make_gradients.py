#!/usr/bin/env python3
"""Writes tests/golden/gradients.json: what PyTorch makes of the gradients of the models in tests/golden/models.

    pip install torch transformers safetensors        (made with transformers 5.24, torch 2.15, on a CPU)
    python3 tests/golden/make_gradients.py

The loss is the sum of the cross entropies of the tokens that "logits" in expected.json belongs to, each but the first
predicted from those before it. Of each gradient g, which is read row by row, the file has its norm, the sum of g[i] cos(i),
its first element and the one in its middle. "states" is what the first block reads. Tensors are those of blocks, the last norm
and the head where it is no embedding. Models with experts have no entry.
"""
import json
import pathlib

import torch
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent


def summary(gradient):
    g = gradient.double().flatten()
    along = torch.dot(g, torch.cos(torch.arange(g.numel(), dtype=torch.float64)))
    return [float(f"{v:.7g}") for v in (g.norm().item(), along.item(), g[0].item(), g[g.numel() // 2].item())]


def gradients(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model.double()
    expected = json.loads((folder / "expected.json").read_text())
    ids = torch.tensor(expected["input_ids"][:expected["logits_of"]])
    states = []

    def keep(_, args, kwargs):
        states.append(args[0] if args else kwargs["hidden_states"])
        states[0].retain_grad()

    decoder = getattr(model.base_model, "decoder", model.base_model)
    decoder.layers[0].register_forward_pre_hook(keep, with_kwargs=True)
    logits = model(ids[None]).logits[0]
    torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="sum").backward()
    result = {"states": summary(states[0].grad)}
    for name, p in model.named_parameters():
        if "layers." in name and p.dim() <= 2 or "norm" in name or "lm_head" in name:
            result[name] = summary(p.grad)
    return result


def main():
    found = {}
    for folder in sorted((HERE / "models").iterdir()):
        config = json.loads((folder / "config.json").read_text())
        if not any("expert" in key for key in config):
            found[folder.name] = gradients(folder)
            print(folder.name, found[folder.name]["states"])
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(g)}" for name, g in found.items())
    (HERE / "gradients.json").write_text("{\n" + lines + "\n}\n")


main()
