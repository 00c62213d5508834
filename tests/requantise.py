"""requantise.py - a GGUF file with its matrices in a quantised type, and the same values in f32.

	python3 tests/requantise.py IN.gguf TYPE QUANTISED.gguf PLAIN.gguf

Matrices whose rows are whole blocks are quantised by the gguf package, as converters do; the plain file
holds what that package makes of the blocks, so that both are the same model.  Prints how many there are.
"""
import sys
import numpy as np
import gguf
from gguf.quants import dequantize, quantize


def copy_metadata(reader, path):
    out = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            out.add_key_value(key, field.contents(), field.types[0], inner)
    return out


def finish(out):
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main():
    source, name, quantised, plain = sys.argv[1:]
    reader, to, count = gguf.GGUFReader(source), gguf.GGMLQuantizationType[name], 0
    block = gguf.GGML_QUANT_SIZES[to][0]
    a, b = copy_metadata(reader, quantised), copy_metadata(reader, plain)
    for t in reader.tensors:
        values = dequantize(t.data, t.tensor_type).astype(np.float32)
        if values.ndim > 1 and values.shape[-1] % block == 0 and "ffn_gate_inp" not in t.name:
            packed = quantize(values, to)
            a.add_tensor(t.name, packed, raw_dtype=to)
            b.add_tensor(t.name, dequantize(packed, to))
            count += 1
        else:
            a.add_tensor(t.name, values)
            b.add_tensor(t.name, values)
    finish(a)
    finish(b)
    print(count)


main()
