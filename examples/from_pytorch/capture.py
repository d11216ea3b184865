#!/usr/bin/env python3
"""Writes what `gptq quantize MODEL OUT --hessians DIR` needs: a Hessian for every linear layer of a transformers model.

    python3 capture.py MODEL TEXT DIR [--tokens 65536] [--length 512] [--head]
"""
import argparse
import pathlib
import sys

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file


def load(folder):
    """The model in float, by the class that its config.json names."""
    name = (transformers.AutoConfig.from_pretrained(folder).architectures or ["AutoModelForCausalLM"])[0]
    return getattr(transformers, name, transformers.AutoModelForCausalLM).from_pretrained(folder, dtype=torch.float32)


class Stored:
    """The matrices in the files of MODEL, by name."""

    def __init__(self, folder):
        files = [safe_open(path, "pt") for path in sorted(pathlib.Path(folder).glob("*.safetensors"))]
        self.file_of = {name[:-7]: file for file in files for name in file.keys() if name.endswith(".weight")}

    def name_of(self, module_name, weight):
        """The stored name of a layer: the longest end in common, and the same numbers."""
        parts = module_name.split(".")
        for skipped in range(len(parts)):
            end = ".".join(parts[skipped:])
            for name, file in self.file_of.items():
                if name == end or name.endswith("." + end):
                    stored = file.get_slice(name + ".weight")
                    if stored.get_shape() == list(weight.shape) and torch.equal(stored[:].to(weight.dtype), weight):
                        return name
        return None


class Sums:
    """The sum of x x' over all tokens x that a layer reads."""

    def __init__(self, layer):
        self.tokens = 0
        self.sum = torch.zeros(layer.in_features, layer.in_features, device=layer.weight.device)
        layer.register_forward_pre_hook(self.add)

    def add(self, layer, inputs):
        x = inputs[0].detach().reshape(-1, layer.in_features).float()
        self.sum.addmm_(x.T, x)
        self.tokens += len(x)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=65536, help="of the text")
    parser.add_argument("--length", type=int, default=512, help="tokens that the model reads at once")
    parser.add_argument("--head", action="store_true", help="the output layer, too")
    args = parser.parse_args()
    model = load(args.model).eval()
    head = None if args.head else model.get_output_embeddings()
    stored = Stored(args.model)
    sums = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Linear) or layer is head:
            continue
        as_stored = stored.name_of(name, layer.weight)
        if as_stored is None:
            print(f"{name}: no matrix of the files is its weight; it is left out", file=sys.stderr)
        else:
            sums[as_stored] = Sums(layer)

    text = pathlib.Path(args.text).read_text()
    ids = transformers.AutoTokenizer.from_pretrained(args.model)(text).input_ids[:args.tokens]
    for first in range(0, len(ids), args.length):
        model(torch.tensor([ids[first:first + args.length]], device=model.device))

    args.dir.mkdir(parents=True)
    for number, (name, s) in enumerate(sums.items()):
        if s.tokens:
            save_file({f"{name}.hessian": s.sum.mul_(2 / s.tokens).cpu(),
                       f"{name}.tokens": torch.tensor([float(s.tokens)])}, args.dir / f"{number:05}.safetensors")
    print(f"{sum(s.tokens > 0 for s in sums.values())} layers read {len(ids)} tokens; "
          f"{sum(s.tokens == 0 for s in sums.values())} read none and are left out")


main()
