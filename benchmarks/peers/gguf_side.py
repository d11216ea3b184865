#!/usr/bin/env python3
"""llama.cpp's side of benchmarks/peers/gguf.

    gguf_side.py float FILE.gguf FLOAT.gguf      every matrix as F16
    gguf_side.py quantize FLOAT.gguf OUT.gguf    Q4_0 without an importance matrix, embedding and head Q8_0
    gguf_side.py perplexity FILE.gguf TEXT N     of the first N tokens, in windows of 512
"""
import ctypes
import math
import sys

import numpy as np

WINDOW = 512


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


def quantize(source, out):
    import llama_cpp
    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    settings.token_embedding_type = settings.output_tensor_type = llama_cpp.GGML_TYPE_Q8_0
    settings.pure = True
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


{"float": to_float, "quantize": quantize, "perplexity": perplexity}[sys.argv[1]](*sys.argv[2:])
