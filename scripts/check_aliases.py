#!/usr/bin/env python3
"""Runs every alias of src/config/spelling.cpp in the library that it comes from.

For each the library's own code is run on a small input and compared with the formula that grist
documents (docs/routing.md, docs/configuration.md), or the setting is read back from what it builds.
Prints the table of docs/aliases.md and exits 1 when an alias has no probe, when a meaning differs
that grist takes without a word, or when the page is not what was printed. By hand, not in CI: needs
about 2 GB of packages.

  scripts/check_aliases.py [--write]    --write: into docs/aliases.md
"""

import math
import os
import re
import subprocess
import sys
import tempfile
import zipfile

import python_environment

python_environment.use(python_environment.TRUTH_PACKAGES)

MEGATRON = "0.19.2"
ROOT = python_environment.ROOT
PAGE = ROOT / "docs" / "aliases.md"


def add_megatron():
    """megatron-core's Python files are what is run; its wheel is for one version of Python."""
    folder = ROOT / ".venv" / f"megatron-{MEGATRON}"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as wheels:
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                            "--only-binary=:all:", "--python-version", "3.12", "--platform",
                            "manylinux_2_28_x86_64", "--dest", wheels,
                            f"megatron-core=={MEGATRON}"], check=True)
            zipfile.ZipFile(os.path.join(wheels, os.listdir(wheels)[0])).extractall(folder)
    sys.path.insert(0, str(folder))


os.environ.setdefault("HF_HUB_OFFLINE", "1")
import warnings  # noqa: E402

warnings.simplefilter("ignore")
add_megatron()
import torch  # noqa: E402
import transformers  # noqa: E402
from megatron.core.transformer.moe import moe_utils  # noqa: E402
from megatron.core.transformer.transformer_config import TransformerConfig  # noqa: E402
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek  # noqa: E402
from transformers.models.glm4_moe import modeling_glm4_moe as glm  # noqa: E402
from transformers.models.mixtral import modeling_mixtral as mixtral  # noqa: E402
from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen  # noqa: E402

N, E, K, WIDTH, LAYERS = 40, 16, 4, 32, 3
torch.manual_seed(0)
X = torch.randn(N, WIDTH)
ROUTER = torch.randn(E, WIDTH)
LOGITS = X @ ROUTER.T
SHAPE = {"hidden_size": WIDTH, "num_attention_heads": 4, "num_hidden_layers": 2,
         "intermediate_size": 96, "vocab_size": 64, "max_position_embeddings": 32}


# --- grist's formulas (docs/routing.md) ------------------------------------------------------------

def weights(logits=LOGITS, k=K, score="softmax", pre=False, norm=False, scale=1.0):
    """(tokens, experts): gate weights, 0 where not chosen."""
    values = torch.sigmoid(logits) if score == "sigmoid" else logits.softmax(-1) if pre else logits
    chosen, ids = values.topk(k, dim=-1)
    if score == "softmax" and not pre:
        chosen = chosen.softmax(-1)
    if norm:
        chosen = chosen / (chosen.sum(-1, keepdim=True) + 1e-20)
    return torch.zeros_like(logits).scatter(1, ids, chosen * scale)


def balance(logits=LOGITS, k=K):
    """One layer's loss for coefficient 1: E sum f P, f over k * tokens."""
    counts = torch.zeros(E).scatter_add(0, logits.topk(k, -1)[1].flatten(), torch.ones(N * k))
    return E * (counts / (k * N) * logits.softmax(-1).mean(0)).sum()


def same(a, b, tolerance=1e-5):
    return torch.allclose(torch.as_tensor(a, dtype=torch.float64),
                          torch.as_tensor(b, dtype=torch.float64), rtol=tolerance, atol=tolerance)


# --- Hugging Face ------------------------------------------------------------------------------------

def spread(router, k=K):
    """The router's weights as (tokens, experts)."""
    with torch.no_grad():
        router.weight.copy_(ROUTER)
        _, scores, ids = router(X)
    return torch.zeros(N, E).scatter(1, ids[:, :k], scores.float())


def qwen_config(**keys):
    return transformers.Qwen3MoeConfig(**{**SHAPE, "num_experts": E, "num_experts_per_tok": K,
                                          "moe_intermediate_size": 24, **keys})


def deepseek_config(**keys):
    return transformers.DeepseekV3Config(**{
        **SHAPE, "n_routed_experts": E, "num_experts_per_tok": K, "moe_intermediate_size": 24,
        "n_group": 1, "topk_group": 1, "norm_topk_prob": False, "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4, "v_head_dim": 8, **keys})


def mixtral_config(**keys):
    return transformers.MixtralConfig(**{**SHAPE, "num_local_experts": E, "num_experts_per_tok": K,
                                         **keys})


def hf_experts():
    built = [mixtral.MixtralTopKRouter(mixtral_config()).weight.shape[0],
             qwen.Qwen3MoeTopKRouter(qwen_config()).weight.shape[0],
             deepseek.DeepseekV3TopkRouter(deepseek_config()).weight.shape[0]]
    return "rows of the router of Mixtral, Qwen3-MoE, DeepSeek-V3", built == [E] * 3


def hf_topk():
    return "Mixtral's router", same(spread(mixtral.MixtralTopKRouter(mixtral_config())), weights())


def hf_width():
    block = qwen.Qwen3MoeSparseMoeBlock(qwen_config())
    return "columns of Qwen3-MoE's down_proj", block.experts.down_proj.shape[-1] == 24


def hf_dense_in_front():
    model = transformers.DeepseekV3ForCausalLM(deepseek_config(num_hidden_layers=3))
    kinds = [hasattr(layer.mlp, "experts") for layer in model.model.layers]
    return "layers of DeepSeek-V3 with experts", kinds == [False, True, True]


def hf_aux():
    theirs = mixtral.load_balancing_loss_func((LOGITS,), E, K)
    assert same(theirs, K * balance())  # one layer: k times
    pushed = [LOGITS.clone().requires_grad_() for _ in range(LAYERS)]
    mixtral.load_balancing_loss_func(tuple(pushed), E, K).backward()
    alone = LOGITS.clone().requires_grad_()
    balance(alone).backward()
    ratio = (pushed[0].grad.norm() / alone.grad.norm()).item()
    return (f"push on a layer's logits, top-{K} of {LAYERS} equal layers: {ratio:.2f} times, "
            f"k / L = {K / LAYERS:.2f}", abs(ratio - 1) < 0.1)


def hf_z():
    switch = transformers.models.switch_transformers.modeling_switch_transformers
    return ("Switch Transformers' loss (no other family has one)",
            same(switch.router_z_loss_func(LOGITS[None]), torch.logsumexp(LOGITS, -1).square().mean()))


def hf_scoring():
    router = deepseek.DeepseekV3TopkRouter(deepseek_config())
    return "DeepSeek-V3's router (always sigmoid)", same(spread(router), weights(score="sigmoid"))


def hf_norm():
    soft = [same(spread(qwen.Qwen3MoeTopKRouter(qwen_config(norm_topk_prob=norm))),
                 weights(pre=True, norm=norm)) for norm in (False, True)]
    sigmoid = [same(spread(deepseek.DeepseekV3TopkRouter(deepseek_config(norm_topk_prob=norm))),
                    weights(score="sigmoid", norm=norm)) for norm in (False, True)]
    return "routers of Qwen3-MoE (with pre_softmax) and DeepSeek-V3", all(soft + sigmoid)


def hf_scale():
    router = deepseek.DeepseekV3TopkRouter(deepseek_config(routed_scaling_factor=2.5))
    return "DeepSeek-V3's router", same(spread(router), weights(score="sigmoid", scale=2.5))


def hf_qk_norm():
    config = transformers.Glm4MoeConfig(**{**SHAPE, "head_dim": 8, "use_qk_norm": True})
    layer = glm.Glm4MoeAttention(config, 0)
    return "GLM-4-MoE's attention: a norm of head_dim", layer.q_norm.weight.numel() == 8


def hf_theta():
    config = qwen_config(head_dim=8, rope_parameters={"rope_theta": 500.0, "rope_type": "default"})
    rope = qwen.Qwen3MoeRotaryEmbedding(config)
    return "Qwen3-MoE's frequencies", same(rope.inv_freq, [500.0 ** (-i / 4) for i in range(4)])


# --- Megatron-core -------------------------------------------------------------------------------------

def megatron_config(**keys):
    return TransformerConfig(**{"num_layers": 2, "hidden_size": WIDTH, "num_attention_heads": 4,
                                **keys})


def read_back(name, value, **more):
    def probe():
        return "read back from TransformerConfig", getattr(
            megatron_config(**{name: value}, **more), name) == value
    return probe


def argument(name):
    def probe():
        text = (ROOT / ".venv" / f"megatron-{MEGATRON}/megatron/training/arguments.py").read_text()
        return "an argument of the training script", f"--{name.replace('_', '-')}'" in text
    return probe


def megatron_router(**keys):
    return moe_utils.topk_routing_with_score_function(LOGITS, K, **keys)[0]


def m_topk():
    return "its router", same(megatron_router(), weights())


def m_pre():
    return "its router", same(megatron_router(use_pre_softmax=True), weights(pre=True))


def m_score():
    theirs = megatron_router(score_function="sigmoid")
    assert same(theirs, weights(score="sigmoid", norm=True))
    return (f"its router: weights of a token sum to 1, grist's plain sigmoid to "
            f"{weights(score='sigmoid').sum(-1).mean():.1f}",
            same(theirs, weights(score="sigmoid")))


def m_scale():
    return "its router", same(megatron_router(scaling_factor=2.5), weights(scale=2.5))


def m_aux():
    counts = (megatron_router() > 0).sum(0)
    return "its loss", same(moe_utils.switch_load_balancing_loss_func(
        LOGITS.softmax(-1), counts, N, K, E, 1.0), balance())


def m_z():
    return "its loss", same(moe_utils.z_loss_func(LOGITS, 1.0),
                            torch.logsumexp(LOGITS, -1).square().mean())


def m_capacity():
    theirs = [moe_utils.get_capacity(tokens * K, E, 1.25) for tokens in (40, 64, 999)]
    return "its capacity", theirs == [math.ceil(1.25 * K * t / E) for t in (40, 64, 999)]


def m_policy():
    """One expert is chosen by all, with room for a quarter of them."""
    chosen = torch.zeros(N, E)
    chosen[:, 0] = torch.linspace(0.1, 0.9, N)
    kept = {}
    for policy in ("probs", "position"):
        _, stay = moe_utils.apply_router_token_dropping(chosen, chosen > 0, 1, 4.0, policy)
        kept[policy] = stay[:, 0].nonzero().flatten().tolist()
    room = math.ceil(4.0 * N / E)
    assert kept["probs"] == list(range(N - room, N))
    return (f"probs: the largest stay; position: of {N} equal tokens {kept['position'][0]} to "
            f"{kept['position'][-1]} stay, not 0 to {room - 1}",
            kept["position"] == list(range(room)))


def m_bias():
    config = megatron_config()
    return (f"its default is {config.moe_router_bias_update_rate}, with "
            f"moe_router_enable_expert_bias {config.moe_router_enable_expert_bias}",
            config.moe_router_bias_update_rate == 0 or config.moe_router_enable_expert_bias)


def m_heads():
    return ("default: num_attention_heads",
            megatron_config(num_query_groups=None).num_query_groups == 4
            and megatron_config(num_query_groups=2).num_query_groups == 2)


def m_kv_channels():
    return ("default: hidden_size / num_attention_heads",
            megatron_config().kv_channels == WIDTH // 4
            and megatron_config(kv_channels=16).kv_channels == 16)


def m_init_std():
    config = megatron_config(init_method_std=0.01, num_layers=8)
    drawn = [init(torch.empty(400, 400)).std().item()
             for init in (config.init_method, config.output_layer_init_method)]
    return ("std of drawn matrices; of outputs divided by sqrt(2 L)",
            same(drawn, [0.01, 0.01 / math.sqrt(16)], 2e-2))


def m_experts():
    config = megatron_config(num_moe_experts=E)
    return "read back from TransformerConfig", config.num_moe_experts == E


# --- the table -------------------------------------------------------------------------------------------

PROBES = {
    "num_local_experts": ("HF", hf_experts), "num_experts": ("HF", hf_experts),
    "n_routed_experts": ("HF", hf_experts), "num_experts_per_tok": ("HF", hf_topk),
    "moe_intermediate_size": ("HF", hf_width), "first_k_dense_replace": ("HF", hf_dense_in_front),
    "router_aux_loss_coef": ("HF", hf_aux), "router_z_loss_coef": ("HF", hf_z),
    "scoring_func": ("HF", hf_scoring), "norm_topk_prob": ("HF", hf_norm),
    "routed_scaling_factor": ("HF", hf_scale), "use_qk_norm": ("HF", hf_qk_norm),
    "rope_theta": ("HF", hf_theta),
    "num_layers": ("Megatron", read_back("num_layers", 6)),
    "ffn_hidden_size": ("Megatron", read_back("ffn_hidden_size", 96)),
    "num_query_groups": ("Megatron", m_heads), "kv_channels": ("Megatron", m_kv_channels),
    "rotary_base": ("Megatron", argument("rotary_base")),
    "norm_epsilon": ("Megatron", read_back("layernorm_epsilon", 1e-6)),
    "layernorm_epsilon": ("Megatron", read_back("layernorm_epsilon", 1e-6)),
    "qk_layernorm": ("Megatron", read_back("qk_layernorm", True)),
    "init_method_std": ("Megatron", m_init_std),
    "seq_length": ("Megatron", argument("seq_length")),
    "num_moe_experts": ("Megatron", m_experts),
    "moe_ffn_hidden_size": ("Megatron", read_back("moe_ffn_hidden_size", 24, num_moe_experts=E)),
    "moe_router_topk": ("Megatron", m_topk), "moe_router_score_function": ("Megatron", m_score),
    "moe_router_pre_softmax": ("Megatron", m_pre),
    "moe_router_dtype": ("Megatron", read_back("moe_router_dtype", "fp32")),
    "moe_router_topk_scaling_factor": ("Megatron", m_scale),
    "moe_router_bias_update_rate": ("Megatron", m_bias),
    "moe_aux_loss_coeff": ("Megatron", m_aux), "moe_z_loss_coeff": ("Megatron", m_z),
    "moe_expert_capacity_factor": ("Megatron", m_capacity),
    "moe_token_drop_policy": ("Megatron", m_policy),
    "moe_shared_expert_intermediate_size": (
        "Megatron", read_back("moe_shared_expert_intermediate_size", 24, num_moe_experts=E)),
}
# What src/config/megatron.cpp reads as Megatron means it, with a note.
TRANSLATED = {"moe_router_score_function": "read as there, with a note",
              "moe_router_bias_update_rate": "read as there, with a note"}


def aliases():
    """name -> (key, has a note), the several places of a name once."""
    text = (ROOT / "src" / "config" / "spelling.cpp").read_text()
    table = text[text.index("kAliases"):text.index("kFixed")]
    found = {}
    for spelled, key, note in re.findall(r'\{"([\w.]+)",\s*"([\w.]+)",\s*(""|k\w+)\}', table):
        found[spelled.rsplit(".", 1)[1]] = (key, note != '""')
    return found


def main():
    rows, wrong = [], []
    for name, (key, noted) in aliases().items():
        if name not in PROBES:
            wrong.append(f"{name}: no probe")
            continue
        library, probe = PROBES[name]
        what, agrees = probe()
        taken = "as it is" if agrees else TRANSLATED.get(name, "with a note" if noted else "")
        if not taken:
            wrong.append(f"{name}: another meaning in {library} and not a word about it: {what}")
        rows.append(f"| `{name}` | `{key}` | {library} | {what} | {'yes' if agrees else 'no'} | "
                    f"{taken} |")
    page = (f"# Aliases, as their libraries run them\n\nPrinted by `scripts/check_aliases.py` with "
            f"transformers {transformers.__version__}, megatron-core {MEGATRON}, "
            f"torch {torch.__version__.split('+')[0]}.\n"
            "What is accepted, and where: [configuration.md](configuration.md).\n\n"
            "| Alias | Key | Library | What was run | Same | Taken |\n|---|---|---|---|---|---|\n"
            + "\n".join(rows) + "\n")
    print(page)
    if "--write" in sys.argv:
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        wrong.append(f"{PAGE.relative_to(ROOT)} is not this table; --write makes it so")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
