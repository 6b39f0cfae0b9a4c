"""A tiny model file for tests: a whole llama of one layer with random weights, its vocabulary of bytes and a template.

A real engine loads it and answers with random bytes; what it says is of no worth. It never emits the end of a text on
purpose, so that a reply is as long as `max_tokens` allows.
"""

from pathlib import Path

import gguf
import numpy as np

CONTEXT_TOKENS = 65_536
_WIDTH, _HEADS, _INNER = 64, 2, 128
_SPECIAL = ("<unk>", "<s>", "</s>")
_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


def write_model(path: Path, *, name: str = "Tiny of no worth") -> Path:
    """Write the model to `path`, a few hundred kB, the same bytes each time; returns `path`."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    _add_vocabulary(writer)
    _add_weights(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """One token for each byte, so that every text can be told."""
    kinds = gguf.TokenType
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))])
    writer.add_token_scores([0.0] * (len(_SPECIAL) + 256))
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(_TEMPLATE)


def _add_weights(writer: gguf.GGUFWriter) -> None:
    random = np.random.default_rng(7)
    tokens = len(_SPECIAL) + 256

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    output = matrix(tokens, _WIDTH)
    output[: len(_SPECIAL)] = 0
    ones = np.ones(_WIDTH, dtype=np.float32)
    writer.add_tensor("token_embd.weight", matrix(tokens, _WIDTH))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output)
    for part in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{part}.weight", ones)
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{part}.weight", matrix(_WIDTH, _WIDTH))
    writer.add_tensor("blk.0.ffn_gate.weight", matrix(_INNER, _WIDTH))
    writer.add_tensor("blk.0.ffn_up.weight", matrix(_INNER, _WIDTH))
    writer.add_tensor("blk.0.ffn_down.weight", matrix(_WIDTH, _INNER))
