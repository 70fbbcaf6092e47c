"""Swap the backend of some encoder layers, and compare text, real-time factor and encoder states.

python examples/swap_a_layer.py talk.wav --sites 'layers.3.self_attn.*_proj' --backend bf16
"""

import argparse
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from tilewhisper import WhisperModel, decode_audio


def main() -> None:
    args = parse_arguments()
    before = transcribe(args, backends=())
    after = transcribe(args, backends=[f"{args.sites}={args.backend}"])
    print(f"text before: {before[0]}\ntext after:  {after[0]}\nsame text: {before[0] == after[0]}")
    print(f"RTF before: {before[1]:.3f}, after: {after[1]:.3f}")
    error = float((after[2] - before[2]).norm() / before[2].norm())
    print(f"relative difference of the encoder states: {error:.1e}")


def transcribe(args: argparse.Namespace, backends: Sequence[str]) -> tuple[str, float, Tensor]:
    """Text, real-time factor, and encoder states (1, 1500, d_model) of the first 30 s."""
    samples = decode_audio(args.file)
    with WhisperModel(args.model, policy=args.policy, backends=backends) as model:
        states = model.encode(model.log_mel(samples)[None, :, :3000])  # also warms the backends up
        segments, _ = model.transcribe(np.asarray(samples), language=args.language)
        text = "".join(segment.text for segment in segments).strip()
        report = segments.report()
        for site in report.sites:
            if backends and site.requested == args.backend:
                print(f"{site.site}: {site.used}")
    return text, report.rtf, states


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Swap the backend of encoder layers and compare.")
    parser.add_argument("file")
    parser.add_argument("--sites", default="layers.3.*", help="glob of sites (default: layers.3.*)")
    parser.add_argument("--backend", default="bf16", help="(default: bf16)")
    parser.add_argument("--policy", default="torch", help="the other sites' policy (default: torch)")
    parser.add_argument("--model", default="tiny.en", help="(default: tiny.en)")
    parser.add_argument("--language", default="en", help="(default: en)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
