"""The faults: each mistake, how every format gets it, and where it must be found."""

from __future__ import annotations

from runtimes.parity.localise import Cause
from tests.faults import graphs, metadata, places, tensors
from tests.faults.fault import Fault, Finds, Plant, everywhere
from tests.faults.tensors import (
    DOWN,
    EMBEDDING,
    GATE,
    HEAD,
    INPUT_NORM,
    KEY,
    LAYER,
    MLP_NORM,
    OUTPUT,
    QUERY,
    QUERY_BIAS,
    UP,
    VALUE,
    all_layers,
    name,
    one,
)

PORTABLE = {"graph": "portable"}
WINDOW = 240


def in_tensor(*parts: str, layer: int | None = LAYER) -> Finds:
    """One of these tensors of a layer is not the checkpoint's."""
    names = tuple(name(part, layer) for part in parts) if layer is not None else parts
    return Finds(Cause.WEIGHTS, layer, names)


FIRST_ROTARY = in_tensor(QUERY, KEY, layer=0)

ROTARY_TABLE = Finds(Cause.METADATA, key="rotary")

FAULTS = (
    Fault(
        "swapped q/k",
        "the rows of a layer's keys and of its first queries change places",
        everywhere(in_tensor(QUERY, KEY), tensors=tensors.swapped_query_and_key),
    ),
    Fault(
        "wrong rope order",
        "rotary partners side by side where halves belong; GGUF: the other way round",
        {
            **everywhere(FIRST_ROTARY, tensors=all_layers((QUERY, KEY), tensors.paired)),
            "gguf": Plant(FIRST_ROTARY, all_layers((QUERY, KEY), tensors.parted)),
        },
    ),
    Fault(
        "transposed matrix",
        "a projection stored as [in, out]",
        everywhere(in_tensor(OUTPUT), tensors=one(OUTPUT, tensors.transposed)),
    ),
    Fault(
        "dropped bias",
        "a bias of the queries is zero (a tiny Qwen2)",
        {
            form: Plant(in_tensor(QUERY_BIAS), one(QUERY_BIAS, tensors.zeros))
            for form in ("onnx", "gguf")
        },
        model="qwen2",
    ),
    Fault(
        "off-by-one position",
        "queries are rotated by one position more than keys (ONNX: graph of standard operators)",
        {
            **everywhere(
                in_tensor(QUERY, layer=0), tensors=all_layers((QUERY,), tensors.one_position_on)
            ),
            "onnx": Plant(
                Finds(Cause.GRAPH, 0),
                files=graphs.edited(graphs.keys_one_position_back),
                options=PORTABLE,
            ),
        },
    ),
    Fault(
        "wrong eps",
        "a tenth of the checkpoint's in every norm",
        {
            **everywhere(
                Finds(Cause.METADATA, key="eps"),
                documents={"config.json": metadata.wrong_epsilon},
            ),
            "onnx": Plant(
                Finds(Cause.METADATA, key="eps"), files=graphs.edited(graphs.wrong_epsilon)
            ),
        },
    ),
    Fault(
        "wrong rope theta",
        "10,000 in place of 100,000",
        {
            "gguf": Plant(
                Finds(Cause.METADATA, key="rope.freq_base"),
                documents={"config.json": metadata.wrong_theta},
            ),
            "mlc": Plant(
                Finds(Cause.METADATA, key="position_embedding_base"),
                documents={"config.json": metadata.wrong_theta},
            ),
            "onnx": Plant(
                Finds(Cause.METADATA, key="rotary"),
                documents={"config.json": metadata.wrong_theta},
                files=metadata.right_config_json,
            ),
        },
    ),
    Fault(
        "shifted embedding",
        "every token gets its neighbour's row",
        everywhere(in_tensor(EMBEDDING, layer=None), tensors=one(EMBEDDING, tensors.rows_shifted)),
    ),
    Fault(
        "truncated vocabulary",
        "the rows of the last tokens, which no text has, are zero",
        everywhere(
            in_tensor(EMBEDDING, layer=None), tensors=one(EMBEDDING, tensors.last_rows_lost)
        ),
    ),
    Fault(
        "shifted shard",
        "from one tensor on, the file's bytes lie 64 bytes too far on",
        everywhere(Finds(Cause.WEIGHTS), files=places.shifted_weights),
    ),
    Fault(
        "flipped scale",
        "one bit of one 8-bit block's scale (MLC: of a 4-bit group's)",
        {
            form: Plant(in_tensor(DOWN), files=places.flipped_scale, variant=variant)
            for form, variant in (("onnx", "q8"), ("gguf", "q8_0"), ("mlc", "q4f16_1"))
        },
    ),
    Fault(
        "no digit splitting",
        "the tokenizer takes 1999 as one word",
        everywhere(
            Finds(Cause.TOKENIZER), documents={"tokenizer.json": metadata.no_digit_splitting}
        ),
    ),
    Fault(
        "space in the template",
        "one more before the reply's first line break",
        {
            **everywhere(
                Finds(Cause.TEMPLATE),
                documents={"tokenizer_config.json": metadata.space_in_template},
            ),
            "mlc": Plant(Finds(Cause.TEMPLATE), files=metadata.space_in_conversation),
        },
    ),
    Fault(
        "swapped layers",
        "two neighbours change places",
        everywhere(Finds(Cause.WEIGHTS, LAYER), tensors=tensors.swapped_layers),
    ),
    Fault(
        "norm left out",
        "a norm's weight is all ones",
        everywhere(in_tensor(INPUT_NORM), tensors=one(INPUT_NORM, tensors.ones)),
    ),
    Fault(
        "norms plus one",
        "Gemma's convention for the weights of norms, in every layer",
        everywhere(
            in_tensor(INPUT_NORM, MLP_NORM, layer=0),
            tensors=all_layers((INPUT_NORM, MLP_NORM), tensors.plus_one),
        ),
    ),
    Fault(
        "attention left out",
        "a layer's output projection is zero",
        everywhere(in_tensor(OUTPUT), tensors=one(OUTPUT, tensors.zeros)),
    ),
    Fault(
        "swapped gate/up",
        "a layer's gate and up projections change places",
        everywhere(in_tensor(GATE, UP), tensors=tensors.swapped_gate_and_up),
    ),
    Fault(
        "shifted key/value heads",
        "each group of queries gets its neighbour's values",
        everywhere(in_tensor(VALUE), tensors=one(VALUE, tensors.heads_shifted)),
    ),
    Fault(
        "wrong key/value head count",
        "one, where the weights have more",
        {
            "onnx": Plant(
                Finds(Cause.METADATA, key="kv_num_heads"),
                files=graphs.edited(graphs.one_key_value_head),
            ),
            "gguf": Plant(
                Finds(Cause.METADATA, key="head_count_kv"),
                files=metadata.gguf_value("attention.head_count_kv", 1),
            ),
            "mlc": Plant(
                Finds(Cause.METADATA, key="num_key_value_heads"),
                files=metadata.one_key_value_head,
            ),
        },
    ),
    Fault(
        "wrong softmax scale",
        "ONNX: scores divided by the head size, not its root; else √size is in the queries too",
        {
            **everywhere(
                in_tensor(QUERY, layer=0), tensors=all_layers((QUERY,), tensors.scaled_twice)
            ),
            "onnx": Plant(
                Finds(Cause.METADATA, key="scale"),
                files=graphs.edited(graphs.softmax_without_root),
            ),
        },
    ),
    Fault(
        "cosines that end early",
        "from three quarters of the context on, every position has the same",
        {"onnx": Plant(ROTARY_TABLE, files=graphs.edited_table(graphs.cosines_end))},
    ),
    Fault(
        "sine that turns",
        "from three quarters of the context on, the rotation goes the other way round",
        {"onnx": Plant(ROTARY_TABLE, files=graphs.edited_table(graphs.sines_turn))},
    ),
    Fault(
        "root graph's gate fed by up",
        "in the graph for Optimum and GenAI alone, a layer's activation takes the up projection",
        {
            "onnx": Plant(
                Finds(Cause.GRAPH, LAYER),
                files=graphs.edited(graphs.gate_fed_by_up, root_only=True),
            )
        },
    ),
    Fault(
        "softcap",
        "a bound on attention's scores that the model has not",
        {
            "onnx": Plant(
                Finds(Cause.METADATA, key="softcap"), files=graphs.edited(graphs.softcapped)
            )
        },
    ),
    Fault(
        "sliding window",
        "attention reaches back a part of the context only",
        {
            "onnx": Plant(
                Finds(Cause.METADATA, key="local_window_size"),
                files=graphs.edited(graphs.windowed),
            ),
            "gguf": Plant(
                Finds(Cause.METADATA, key="sliding_window"),
                files=metadata.gguf_added("attention.sliding_window", WINDOW),
            ),
            "mlc": Plant(
                Finds(Cause.METADATA, key="sliding_window_size"),
                files=metadata.json_value(metadata.MLC_CONFIG, "sliding_window_size", WINDOW),
            ),
        },
    ),
    Fault(
        "rope scaling",
        "positions are squeezed together by four",
        {
            "gguf": Plant(
                Finds(Cause.METADATA, key="rope.scaling"),
                documents={"config.json": metadata.linear_scaling},
            ),
            "mlc": Plant(
                Finds(Cause.METADATA, key="rope_scaling"), files=metadata.scaled_model_config
            ),
            "onnx": Plant(
                ROTARY_TABLE,
                documents={"config.json": metadata.linear_scaling},
                files=metadata.unscaled_config_json,
            ),
        },
    ),
    Fault(
        "swapped merges",
        "two rare merges change places: no string of the comparison needs them",
        {
            **everywhere(
                Finds(Cause.TOKENIZER, key="tokenizer.json model.merges"),
                documents={"tokenizer.json": metadata.swapped_merges},
            ),
            "gguf": Plant(
                Finds(Cause.TOKENIZER, key="tokenizer.ggml.merges"),
                documents={"tokenizer.json": metadata.swapped_merges},
            ),
        },
    ),
    Fault(
        "begin token for every text",
        "the tokenizer is told to add one, the checkpoint's adds none",
        {
            "gguf": Plant(
                Finds(Cause.TOKENIZER, key="add_bos_token"),
                files=metadata.gguf_value("tokenizer.ggml.add_bos_token", True),
            )
        },
    ),
    Fault(
        "data files that are not there",
        "a loader is told to fetch more of them than were written",
        {
            "onnx": Plant(
                Finds(Cause.METADATA, key="use_external_data_format"),
                files=metadata.more_data_files,
            )
        },
    ),
    Fault(
        "another old index",
        "the index under its old name has other places than that under its new one",
        {
            "mlc": Plant(
                Finds(Cause.METADATA, key="].records[1].byteOffset"),
                files=metadata.moved_in_old_index,
            )
        },
    ),
    Fault(
        "no causal mask",
        "every position sees those after it (ONNX's graph of standard operators)",
        {
            "onnx": Plant(
                Finds(Cause.GRAPH, 0), files=graphs.edited(graphs.not_causal), options=PORTABLE
            )
        },
    ),
    Fault(
        "NaN weight",
        "one value of a matrix",
        everywhere(in_tensor(DOWN), files=places.nan_weight),
    ),
    Fault(
        "wrong head",
        "the rows of an untied head are shifted by one (a tiny model)",
        everywhere(in_tensor(HEAD, layer=None), tensors=one(HEAD, tensors.rows_shifted)),
        model="untied",
    ),
    Fault(
        "exchanged KV cache",
        "a layer's new keys are kept as values: only decoding shows it",
        {"onnx": Plant(Finds(Cause.KV_CACHE, LAYER), files=graphs.edited(graphs.exchanged_cache))},
    ),
    Fault(
        "left padding visible",
        "padded keys get no bias: only batches show it",
        {"onnx": Plant(Finds(Cause.PADDING), files=graphs.edited(graphs.padding_visible))},
    ),
    Fault(
        "wrong end token",
        "generation stops at another token than the checkpoint's",
        {
            **everywhere(
                Finds(Cause.METADATA, key="eos_token_id"),
                documents={"generation_config.json": metadata.wrong_end},
            ),
            "gguf": Plant(
                Finds(Cause.METADATA, key="eos_token_id"),
                files=metadata.gguf_value("tokenizer.ggml.eos_token_id", 0),
            ),
            "mlc": Plant(Finds(Cause.METADATA, key="stop_token_ids"), files=metadata.wrong_stop),
        },
    ),
)
