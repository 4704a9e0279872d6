#!/usr/bin/env python3
"""PyTorch's speed on this GPU at the shapes of grist's own benchmark, as its alternatives.

Reads measurements (docs/cuda.md), runs what PyTorch has for the same kernel and shape in bf16, and
writes lines with "alternative" for scripts/gpu_report.py. What PyTorch has not, or cannot do here,
is left out with a line that says so. Needs a Python with torch and a GPU.

  scripts/bench_torch_gpu.py --json OUT [--rounds 20] MEASUREMENTS.jsonl...
"""

import argparse
import json
import pathlib
import statistics
import sys

import torch
import torch.nn.functional as F

BF16 = torch.bfloat16


class Torch:
    """One method a kernel: takes the shape's numbers, gives {name: function to time}."""

    def __init__(self, device):
        self.device = device
        self.generator = torch.Generator(device).manual_seed(1)

    def tensor(self, *dims, dtype=BF16, grad=False):
        x = torch.randn(*dims, device=self.device, dtype=dtype, generator=self.generator)
        return x.requires_grad_(grad)

    def offsets(self, s):
        rows = s["R"]
        return torch.tensor([rows * (e + 1) // s["E"] for e in range(s["E"])], device=self.device,
                            dtype=torch.int32)

    # ---- dense matmuls: N tokens, I in, O out
    def linear_forward(self, s):
        x, w = self.tensor(s["N"], s["I"]), self.tensor(s["O"], s["I"])
        return {"torch.matmul": lambda: torch.matmul(x, w.t())}

    def linear_backward_input(self, s):
        dy, w = self.tensor(s["N"], s["O"]), self.tensor(s["O"], s["I"])
        return {"torch.matmul": lambda: torch.matmul(dy, w)}

    def linear_backward_weight(self, s):
        dy, x = self.tensor(s["N"], s["O"]), self.tensor(s["N"], s["I"])
        dw = self.tensor(s["O"], s["I"], dtype=torch.float32)
        return {"torch.matmul, added to fp32": lambda: dw.add_(torch.matmul(dy.t(), x))}

    # ---- experts: R rows, E experts; the gathers and the arithmetic in between are PyTorch's too
    def grouped(self, rows, inner, outer, s):
        x, w = self.tensor(rows, inner), self.tensor(s["E"], inner, outer)
        offsets = self.offsets(s)
        return lambda: torch._grouped_mm(x, w, offs=offsets)

    def expert_up_forward(self, s):
        x = self.tensor(s.get("N", s["R"]), s["D"])
        w, offsets = self.tensor(s["E"], s["D"], 2 * s["F"]), self.offsets(s)
        token = torch.randint(x.shape[0], (s["R"],), device=self.device)

        def run():
            z = torch._grouped_mm(x[token], w, offs=offsets)
            return F.silu(z[:, :s["F"]]) * z[:, s["F"]:]
        return {"torch._grouped_mm, gathered, silu": run}

    def expert_down_forward(self, s):
        return {"torch._grouped_mm": self.grouped(s["R"], s["F"], s["D"], s)}

    def expert_down_backward(self, s):  # the matmul alone: a lower bound of PyTorch's time
        return {"torch._grouped_mm, matmul alone": self.grouped(s["R"], s["D"], s["F"], s)}

    def expert_up_backward(self, s):
        return {"torch._grouped_mm": self.grouped(s["R"], 2 * s["F"], s["D"], s)}

    def expert_weight_gradient(self, s):
        dy, x = self.tensor(s["R"], s["O"]), self.tensor(s["R"], s["I"])
        dw, offsets = self.tensor(s["E"], s["O"], s["I"], dtype=torch.float32), self.offsets(s)
        return {"torch._grouped_mm, added to fp32": lambda: dw.add_(
            torch._grouped_mm(dy.t(), x, offs=offsets))}

    # ---- attention: S documents of T tokens, H query heads and Hkv others, Dh wide
    def attention(self, s, grad):
        q = self.tensor(s["S"], s["H"], s["T"], s["Dh"], grad=grad)
        k, v = (self.tensor(s["S"], s["Hkv"], s["T"], s["Dh"], grad=grad) for _ in range(2))
        return q, k, v, lambda: F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=s["H"] != s["Hkv"])

    def attention_forward(self, s):
        return {"torch scaled_dot_product_attention": self.attention(s, False)[-1]}

    def attention_backward(self, s):
        *inputs, forward = self.attention(s, True)
        o = forward()
        do = torch.randn_like(o)
        return {"torch scaled_dot_product_attention": lambda: torch.autograd.grad(
            o, inputs, do, retain_graph=True)}

    # ---- the others
    def rms_norm_forward(self, s):
        x, residual, w = self.tensor(s["N"], s["D"]), self.tensor(s["N"], s["D"]), self.tensor(s["D"])
        if "residual" not in s["words"]:
            return {"torch rms_norm": lambda: F.rms_norm(x, (s["D"],), w, 1e-5)}
        return {"torch add, rms_norm": lambda: F.rms_norm(x + residual, (s["D"],), w, 1e-5)}

    def rms_norm_backward(self, s):
        x, w = self.tensor(s["N"], s["D"], grad=True), self.tensor(s["D"], grad=True)
        y, dy = F.rms_norm(x, (s["D"],), w, 1e-5), self.tensor(s["N"], s["D"])
        return {"torch rms_norm": lambda: torch.autograd.grad(y, (x, w), dy, retain_graph=True)}

    def swiglu_forward(self, s):
        z = self.tensor(s["N"], 2 * s["F"])
        return {"torch silu, product": lambda: F.silu(z[:, :s["F"]]) * z[:, s["F"]:]}

    def linear_cross_entropy(self, s):
        x, w = self.tensor(s["N"], s["D"], grad=True), self.tensor(s["V"], s["D"], grad=True)
        target = torch.randint(s["V"], (s["N"],), device=self.device)
        return {"torch linear, cross_entropy": lambda: torch.autograd.grad(
            F.cross_entropy((x @ w.t()).float(), target), (x, w))}

    def embedding_forward(self, s):
        table = self.tensor(s["V"], s["D"], dtype=torch.float32)
        ids = torch.randint(s["V"], (s["N"],), device=self.device)
        return {"torch embedding": lambda: F.embedding(ids, table).to(BF16)}

    def adamw(self, s):
        p = self.tensor(s["n"], dtype=torch.float32, grad=True)
        p.grad = self.tensor(s["n"], dtype=torch.float32)
        step = torch.optim.AdamW([p], fused=True).step
        return {"torch fused AdamW": step}

    # A whole MoE layer, forward and backward, balanced routing given.
    def moe_layer(self, s):
        x = self.tensor(s["N"], s["D"], grad=True)
        w13 = self.tensor(s["E"], s["D"], 2 * s["F"], grad=True)
        w2 = self.tensor(s["E"], s["F"], s["D"], grad=True)
        rows = s["N"] * s["K"]
        offsets = self.offsets(s | {"R": rows})
        token = torch.randperm(rows, device=self.device, generator=self.generator) // s["K"]
        weight, dy = self.tensor(rows, 1), self.tensor(s["N"], s["D"])

        def run():
            z = torch._grouped_mm(x[token], w13, offs=offsets)
            a = F.silu(z[:, :s["F"]]) * z[:, s["F"]:]
            y = torch._grouped_mm(a, w2, offs=offsets)
            out = torch.zeros_like(dy).index_add(0, token, y * weight)
            return torch.autograd.grad(out, (x, w13, w2), dy)
        return {"torch._grouped_mm and autograd": run}


def median_ms(run, rounds, device):
    """Events around each call; the L2 is flushed before it."""
    if device == "cpu":  # for trying this script
        run()
        return 1.0
    flush = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    for _ in range(3):
        run()
    times = []
    for _ in range(rounds):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def shape_of(text):
    """The numbers among a shape's words NAME=VALUE; the words without one as "words"."""
    pairs = (word.split("=", 1) for word in text.split() if "=" in word)
    return {"words": [word for word in text.split() if "=" not in word],
            **{key: int(value) for key, value in pairs if value.isdigit()}}


def measure(bench, row, rounds):
    """Lines for one measurement; a kernel that PyTorch cannot do gives none."""
    make = getattr(bench, row["kernel"], None)
    if make is None or row.get("dtype", "bf16") != "bf16" or "router" in row["shape"].split():
        return  # the router's product is in fp32
    try:
        for name, run in make(shape_of(row["shape"])).items():
            yield {"kernel": row["kernel"], "shape": row["shape"], "alternative": name,
                   "alternative_ms": median_ms(run, rounds, bench.device)}
    except (RuntimeError, KeyError, AttributeError, TypeError) as error:
        print(f"left out: {row['kernel']} {row['shape']}: {type(error).__name__}: "
              f"{str(error).splitlines()[0]}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cuda", help="cpu: tries this script without a GPU")
    parser.add_argument("measurements", type=pathlib.Path, nargs="+")
    a = parser.parse_args()
    if a.device == "cuda" and not torch.cuda.is_available():
        sys.exit("this torch sees no GPU")
    print(f"torch {torch.__version__}")
    bench = Torch(a.device)
    with open(a.json, "w", encoding="utf-8") as out:
        for path in filter(pathlib.Path.exists, a.measurements):
            for line in path.read_text(encoding="utf-8").splitlines():
                for result in measure(bench, json.loads(line), a.rounds):
                    out.write(json.dumps(result) + "\n")
                    print(f"{result['kernel']} {result['shape']}: {result['alternative']} "
                          f"{result['alternative_ms']:.4f} ms", flush=True)
                if a.device == "cuda":
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
