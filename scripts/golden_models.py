"""The tiny models of make_golden.py: their shapes in both vocabularies, weights and file names."""

import contextlib

import torch
import transformers
from torch.overrides import TorchFunctionMode

AUX_COEFF, Z_COEFF = 0.05, 0.01
SHAPE = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 61, "max_position_embeddings": 32}
NUM_EXPERTS, EXPERT_WIDTH, DENSE_WIDTH = 8, 12, 24
ROUTED_SCALE = 1.5  # glm4_moe
# One golden a name. `documents`: lengths of the documents in each row, None for one a row.
# `head_z_coeff`: of the z-loss on the output logits, where the golden has one.
# `gap`: no routing decision may be closer, in logits, or for sigmoid in scores.
MIXTRAL = {"type": "mixtral", "top_k": 2, "norm": True, "tied": False, "theta": 1e4, "eps": 1e-5,
           "documents": None, "gap": 1e-3}
QWEN3 = {"type": "qwen3_moe", "top_k": 3, "norm": True, "tied": False, "theta": 1e6, "eps": 1e-6,
         "documents": None, "gap": 1e-3}
GOLDENS = {
    "mixtral": MIXTRAL,
    "mixtral_head_z": {**MIXTRAL, "head_z_coeff": 0.02},
    "mixtral_packed": {**MIXTRAL, "documents": [[7, 12], [1, 13, 5]]},
    "qwen3_moe_norm": QWEN3,
    "qwen3_moe": {**QWEN3, "norm": False, "tied": True},
    "glm4_moe": {**QWEN3, "type": "glm4_moe", "theta": 1e4, "eps": 1e-5, "gap": 1e-4},
}
CLASSES = {"mixtral": ("MixtralConfig", "MixtralForCausalLM"),
           "qwen3_moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM"),
           "glm4_moe": ("Glm4MoeConfig", "Glm4MoeForCausalLM")}


class Float64(TorchFunctionMode):
    """transformers casts to float32 in norms, softmax and RoPE; here those casts mean float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def widen(value):
            return torch.float64 if value is torch.float32 else value

        if func is torch.Tensor.float:
            return args[0].double()
        args = tuple(widen(a) for a in args)
        result = func(*args, **{k: widen(v) for k, v in (kwargs or {}).items()})
        assert getattr(result, "dtype", None) is not torch.float32, f"{func} stayed in float32"
        return result


@contextlib.contextmanager
def precision(dtype):
    torch.set_default_dtype(dtype)
    with Float64() if dtype is torch.float64 else contextlib.nullcontext():
        yield
    torch.set_default_dtype(torch.float32)


def is_sigmoid(spec):
    return spec["type"] == "glm4_moe"


def hub_config(spec):
    """config.json as transformers reads it."""
    config = dict(SHAPE, model_type=spec["type"], architectures=[CLASSES[spec["type"]][1]],
                  rope_theta=spec["theta"], rms_norm_eps=spec["eps"], hidden_act="silu",
                  num_experts_per_tok=spec["top_k"], tie_word_embeddings=spec["tied"],
                  attention_dropout=0.0, use_cache=False, bos_token_id=None, eos_token_id=None)
    if spec["type"] == "mixtral":
        config.update(num_local_experts=NUM_EXPERTS, intermediate_size=EXPERT_WIDTH,
                      sliding_window=None)
        return config
    config.update(moe_intermediate_size=EXPERT_WIDTH, intermediate_size=DENSE_WIDTH,
                  norm_topk_prob=spec["norm"], attention_bias=False)
    if spec["type"] == "qwen3_moe":
        config.update(num_experts=NUM_EXPERTS, decoder_sparse_step=1, mlp_only_layers=[],
                      use_sliding_window=False)
    else:
        config.update(n_routed_experts=NUM_EXPERTS, n_shared_experts=1, n_group=1, topk_group=1,
                      routed_scaling_factor=ROUTED_SCALE, first_k_dense_replace=1,
                      use_qk_norm=False, partial_rotary_factor=1.0, num_nextn_predict_layers=0)
    return config


def grist_config(spec):
    """The same model in the words of grist's `model` block."""
    router = {"score_function": "softmax",
              "pre_softmax": not spec["norm"],  # softmax, top-k, divide IS softmax after top-k
              "norm_topk_prob": False, "routed_scaling_factor": 1.0}
    moe = {"num_experts": NUM_EXPERTS, "num_experts_per_tok": spec["top_k"],
           "moe_intermediate_size": EXPERT_WIDTH, "first_k_dense_replace": 0,
           "shared_expert_intermediate_size": 0, "expert_bias_update_rate": 0.0,
           "aux_loss_coeff": AUX_COEFF, "aux_loss_scope": "micro_batch", "z_loss_coeff": Z_COEFF}
    if is_sigmoid(spec):
        router.update(score_function="sigmoid", pre_softmax=False, norm_topk_prob=spec["norm"],
                      routed_scaling_factor=ROUTED_SCALE)
        # Any rate turns the biases on; they keep their stored values in all ten steps.
        moe.update(first_k_dense_replace=1, shared_expert_intermediate_size=EXPERT_WIDTH,
                   expert_bias_update_rate=0.001)
    head = {"lm_head_z_loss_coeff": spec["head_z_coeff"]} if "head_z_coeff" in spec else {}
    return dict(SHAPE, **head, intermediate_size=DENSE_WIDTH, rope_theta=spec["theta"],
                rms_norm_eps=spec["eps"], qk_norm=spec["type"] == "qwen3_moe",
                tie_word_embeddings=spec["tied"], moe={**moe, "router": router})


def build(spec, dtype):
    """transformers' model; its parameters are to be replaced."""
    words = hub_config(spec)
    rope = {"rope_type": "default", "rope_theta": words.pop("rope_theta")}
    if "partial_rotary_factor" in words:
        rope["partial_rotary_factor"] = words.pop("partial_rotary_factor")
    config_class, model_class = (getattr(transformers, name) for name in CLASSES[spec["type"]])
    config = config_class(**words, rope_parameters=rope)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    with precision(dtype):
        return model_class(config).to(dtype).train()


def random_weights(spec, seed):
    """Large enough that routing is decided and every non-linearity is used."""
    generator = torch.Generator().manual_seed(seed)
    stds = {"gate": 0.5, "embed_tokens": 0.4 if spec["tied"] else 1.0}
    weights = {}
    for name, value in sorted(build(spec, torch.float32).state_dict().items()):
        if spec["tied"] and name == "lm_head.weight":
            continue
        std = 0.1 if name.endswith("bias") else stds.get(name.split(".")[-2], 0.2)
        mean = 1.0 if "norm" in name else 0.0
        weights[name] = mean + std * torch.randn(value.shape, generator=generator)
    return weights


def decays(name):
    return not ("norm" in name or name.endswith("gate.weight") or "embed_tokens" in name)


def hub_tensors(spec, tensors):
    """From transformers' fused experts to the names and shapes of files on the hub."""
    mixtral = spec["type"] == "mixtral"
    words = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    result = {}
    for name, tensor in tensors.items():
        hub = name.replace(".mlp.", ".block_sparse_moe.") if mixtral else name
        prefix, _, leaf = hub.rpartition(".")
        if leaf == "gate_up_proj":
            for expert in range(NUM_EXPERTS):
                gate, up = tensor[expert].chunk(2)
                result[f"{prefix}.{expert}.{words[0]}.weight"] = gate
                result[f"{prefix}.{expert}.{words[1]}.weight"] = up
        elif leaf == "down_proj":
            for expert in range(NUM_EXPERTS):
                result[f"{prefix}.{expert}.{words[2]}.weight"] = tensor[expert]
        else:
            result[hub] = tensor
    return result
