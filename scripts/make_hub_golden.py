#!/usr/bin/env python3
"""Makes tests/golden/hub: tiny models of each family, saved by transformers, with their logits.

Run by hand when a golden must change; the results are committed. Each folder is what
save_pretrained() writes, so config.json and the tensors' names are transformers' own;
logits.safetensors beside it holds tokens and what the saved weights give in float32. Between them
the models cover one file and several, F32, BF16 and F16, experts one by one and fused. tests/hub
imports them.

  scripts/make_hub_golden.py      GRIST_PYTHON=/path/to/python skips making an environment
"""

import os
import shutil

import python_environment

python_environment.use(python_environment.TRUTH_PACKAGES)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

OUTPUT = python_environment.ROOT / "tests" / "golden" / "hub"
TOKENS = 16
COMMON = {"vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
          "tie_word_embeddings": False, "initializer_range": 0.3, "bos_token_id": None,
          "eos_token_id": 3, "pad_token_id": None,
          "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8, "intermediate_size": 24}
# name -> class prefix, keys beside COMMON, how it is saved
GOLDENS = {
    "llama": ("Llama", {"intermediate_size": 24, "tie_word_embeddings": True}, {}),
    "qwen3": ("Qwen3", {"intermediate_size": 24, "head_dim": 8}, {}),
    "mixtral": ("Mixtral", {"num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 6,
                            "intermediate_size": 8}, {"max_shard_size": "9KB"}),
    "qwen3_moe": ("Qwen3Moe", {**EXPERTS, "num_experts": 6, "head_dim": 8, "norm_topk_prob": True,
                               "mlp_only_layers": [0]}, {"dtype": torch.bfloat16}),
    "qwen3_moe_fused": ("Qwen3Moe", {**EXPERTS, "num_experts": 6, "head_dim": 4,
                                     "norm_topk_prob": False}, {"fused": True}),
    "qwen2_moe": ("Qwen2Moe", {**EXPERTS, "num_experts": 6, "shared_expert_intermediate_size": 8},
                  {}),
    "glm4_moe": ("Glm4Moe", {**EXPERTS, "n_routed_experts": 6, "n_shared_experts": 2, "n_group": 1,
                             "topk_group": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.5,
                             "first_k_dense_replace": 1, "use_qk_norm": True, "head_dim": 4,
                             "num_nextn_predict_layers": 0,
                             "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0,
                                                 "partial_rotary_factor": 1.0}}, {}),
    "granitemoeshared": ("GraniteMoeShared",
                         {"num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 8,
                          "shared_intermediate_size": 12, "attention_multiplier": 0.5},
                         {"dtype": torch.float16}),
}


def fill(model, seed):
    """Weights large enough that routing is decided; what grist has no place for stays zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        std = 0.1 if name.endswith("correction_bias") else 0.5
        noise = std * torch.randn(value.shape, generator=generator)
        if name.endswith("_proj.bias") or name.endswith("shared_expert.down_proj.weight"):
            noise.zero_()
        value.copy_(noise + (1.0 if "norm" in name else 0.0))


def make(name, prefix, keys, how):
    config = getattr(transformers, prefix + "Config")(**{**COMMON, **keys})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = getattr(transformers, prefix + "ForCausalLM")(config).eval()
    dtype = how.get("dtype", torch.float32)
    folder = OUTPUT / name
    shutil.rmtree(folder, ignore_errors=True)
    with torch.no_grad():
        fill(model, 11)
        model = model.to(dtype)
        model.save_pretrained(folder, max_shard_size=how.get("max_shard_size", "1GB"))
        if how.get("fused"):
            save_file({k: v.contiguous() for k, v in model.state_dict().items()},
                      folder / "model.safetensors", {"format": "pt"})
        generator = torch.Generator().manual_seed(5)
        ids = torch.randint(config.vocab_size, (1, TOKENS), generator=generator)
        # Read again: a cast of the model would have rounded its RoPE frequencies too.
        model, info = type(model).from_pretrained(folder, dtype=torch.float32,
                                                  output_loading_info=True)
        assert not any(info.values()), info
        logits = model.eval()(ids).logits[0]
    save_file({"input_ids": ids[0].int(), "logits": logits.contiguous()},
              folder / "logits.safetensors")
    (folder / "generation_config.json").unlink(missing_ok=True)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: {size / 1000:.0f} kB, logits up to {logits.abs().max():.2f}")


for golden, (prefix, keys, how) in GOLDENS.items():
    make(golden, prefix, keys, how)
