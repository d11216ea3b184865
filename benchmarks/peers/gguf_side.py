#!/usr/bin/env python3
"""llama.cpp's side of benchmarks/peers/gguf.

    gguf_side.py float FILE.gguf FLOAT.gguf      every matrix as F16
    gguf_side.py importance FOLDER TEXT N T OUT.npz   importance matrix from N windows of T tokens; needs transformers
    gguf_side.py quantize FLOAT.gguf OUT.gguf [TYPE [MATRIX.npz]]   embedding and head Q8_0
    gguf_side.py perplexity FILE.gguf TEXT N     of the first N tokens, in windows of 512
"""
import ctypes
import math
import sys

import numpy as np

WINDOW = 512
FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 12, "Q4_K": 14, "Q5_K": 16,
              "Q6_K": 18}
LAYERS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
          "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
          "ffn_down": "mlp.down_proj"}


def to_float(source, out):
    import gguf
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    own = ("general.architecture", "general.file_type", "general.quantization_version")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in own:
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(field.name, field.contents())
        else:
            writer.add_key_value(field.name, field.contents(), field.types[0])
    writer.add_file_type(1)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        writer.add_tensor(tensor.name, values.astype(np.float16 if values.ndim == 2 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def importance(folder, text, count, length, out):
    """The mean square of every input of the linear layers, in windows spread over the text, as llama-imatrix has it."""
    import torch
    import transformers
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with open(text, encoding="utf-8") as file:
        ids = transformers.AutoTokenizer.from_pretrained(folder)(file.read(), return_tensors="pt").input_ids[0]
    count, length = int(count), int(length)
    sums = {}
    for index, block in enumerate(model.model.layers):
        for theirs, ours in LAYERS.items():
            name = f"blk.{index}.{theirs}.weight"
            block.get_submodule(ours).register_forward_pre_hook(lambda _, x, name=name: sums.__setitem__(
                name, sums.get(name, 0) + x[0].double().pow(2).sum((0, 1))))
    with torch.no_grad():
        for i in range(count):
            first = i * (len(ids) - length) // max(count - 1, 1)
            model(ids[None, first:first + length])
    np.savez(out, **{name: (total / (count * length)).float().numpy() for name, total in sums.items()})


def quantize(source, out, kind="Q4_0", matrix=None):
    import llama_cpp
    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = FILE_TYPES[kind.upper()]
    settings.token_embedding_type = settings.output_tensor_type = llama_cpp.GGML_TYPE_Q8_0
    settings.pure = True
    settings.nthread = 2
    if matrix is not None:
        data = [(name, np.ascontiguousarray(values)) for name, values in np.load(matrix).items()]
        entries = (llama_cpp.llama_model_imatrix_data * (len(data) + 1))()  # ends with one without a name
        for entry, (name, values) in zip(entries, data):
            entry.name, entry.size = name.encode(), values.size
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        settings.imatrix = entries
    if llama_cpp.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(settings)) != 0:
        sys.exit("llama_model_quantize failed")


def perplexity(path, text, count):
    import llama_cpp
    model = llama_cpp.Llama(path, n_ctx=WINDOW, n_batch=WINDOW, logits_all=True, verbose=False)
    with open(text, "rb") as file:
        ids = model.tokenize(file.read(20 * int(count)), add_bos=True, special=False)[:int(count)]
    nll, scored = 0.0, 0
    for i in range(0, len(ids) - 1, WINDOW):
        window = ids[i:i + WINDOW]
        model.reset()
        model.eval(window)
        logits = np.array(model.scores[:len(window) - 1], dtype=np.float64)
        logits -= logits.max(1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(1, keepdims=True))
        nll -= logits[np.arange(len(window) - 1), window[1:]].sum()
        scored += len(window) - 1
    print(f"llama.cpp, {path}: {math.exp(nll / scored):.4f} over {scored} tokens")


{"float": to_float, "importance": importance, "quantize": quantize, "perplexity": perplexity}[sys.argv[1]](*sys.argv[2:])
