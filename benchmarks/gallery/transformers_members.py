"""Models of transformers with small configurations and random weights, each with example inputs.

Each name is a callable without arguments that gives a module and its inputs by name, as
`toolkit export FILE.py:NAME` takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import AutoConfig

SMALL = {
    "hidden_size": 32, "embedding_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 99, "n_embd": 32,
    "n_layer": 2, "n_head": 4, "n_inner": 48, "d_model": 32, "d_ff": 48, "d_kv": 8, "d_inner": 48,
    "num_layers": 2, "num_heads": 4, "num_decoder_layers": 2, "encoder_layers": 2,
    "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "ffn_dim": 48, "dim": 32, "n_layers": 2,
    "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64, "n_positions": 64,
    "type_vocab_size": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "word_embed_proj_dim": 32, "head_dim": 8, "ffn_hidden_size": 48, "state_size": 8,
    "image_size": 32, "patch_size": 8, "num_channels": 3, "head_hidden_size": 32,
    "attention_hidden_size": 32, "intermediate_dim": 48, "d_embed": 16,
    # Weights of 0.02, the usual start of a training, hide the attention behind rounding.
    "initializer_range": 0.2, "init_std": 0.2,
}  # fmt: skip
TOKENS = (2, 12)


def config(kind: str, **settings: Any) -> Any:
    """The configuration of a family with small sizes where it has them."""
    usual = AutoConfig.for_model(kind)
    names = usual.attribute_map
    given = {names.get(name, name) for name in settings}
    chosen = {
        name: value
        for name, value in SMALL.items()
        if hasattr(usual, name) and names.get(name, name) not in given
    }
    return AutoConfig.for_model(kind, **{**chosen, **settings})


def made(name: str, of: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return moved(getattr(transformers, name)(of).eval())


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """Biases and the like away from the zeros and ones that they start from, as training does."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.rand_like(parameter)
    return module


def tokens(size: int = 99, shape: tuple[int, int] = TOKENS) -> torch.Tensor:
    return torch.randint(3, size, shape, generator=torch.Generator().manual_seed(1))


def mask(shape: tuple[int, int] = TOKENS) -> torch.Tensor:
    found = torch.ones(shape, dtype=torch.int64)
    found[1, shape[1] // 2 :] = 0
    return found


def picture(size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))


def wave(samples: int = 4000) -> torch.Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(3))


Member = Callable[[], tuple[torch.nn.Module, dict[str, torch.Tensor]]]


def encoder(kind: str, model: str, **settings: Any) -> Member:
    def make() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        return made(model, config(kind, **settings)), {
            "input_ids": tokens(), "attention_mask": mask()
        }  # fmt: skip

    return make


def decoder(kind: str, model: str, **settings: Any) -> Member:
    """Without past key values: the whole sequence at once."""

    def make() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        of = config(kind, use_cache=False, **settings)
        return made(model, of), {"input_ids": tokens(), "attention_mask": mask()}

    return make


def pair(kind: str, model: str, **settings: Any) -> Member:
    def make() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        of = config(kind, use_cache=False, decoder_start_token_id=1, **settings)
        return made(model, of), {
            "input_ids": tokens(), "attention_mask": mask(), "decoder_input_ids": tokens()[:, :5]
        }  # fmt: skip

    return make


def vision(kind: str, model: str, size: int = 32, **settings: Any) -> Member:
    def make() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        return made(model, config(kind, **settings)), {"pixel_values": picture(size)}

    return make


def audio(kind: str, model: str, **settings: Any) -> Member:
    def make() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        return made(model, config(kind, **settings)), {"input_values": wave()}

    return make


Bert = encoder("bert", "BertForSequenceClassification")
Roberta = encoder("roberta", "RobertaForMaskedLM")
DistilBert = encoder("distilbert", "DistilBertForQuestionAnswering")
Albert = encoder("albert", "AlbertModel")
Electra = encoder("electra", "ElectraForTokenClassification")
DebertaV2 = encoder("deberta-v2", "DebertaV2Model", relative_attention=True,
                    pos_att_type=["p2c", "c2p"], position_buckets=8)  # fmt: skip
Mpnet = encoder("mpnet", "MPNetModel")
MobileBert = encoder("mobilebert", "MobileBertModel", intra_bottleneck_size=16, true_hidden_size=16)
SqueezeBert = encoder("squeezebert", "SqueezeBertModel", embedding_size=32)
Fnet = encoder("fnet", "FNetModel")
ModernBert = encoder("modernbert", "ModernBertModel")
Esm = encoder("esm", "EsmModel", mask_token_id=4, position_embedding_type="rotary")
Ernie = encoder("ernie", "ErnieModel")
ConvBert = encoder("convbert", "ConvBertModel")
LayoutLm = encoder("layoutlm", "LayoutLMModel")
Gpt2 = decoder("gpt2", "GPT2LMHeadModel")
GptNeo = decoder("gpt_neo", "GPTNeoForCausalLM", attention_types=[[["global", "local"], 1]],
                 window_size=4)  # fmt: skip
GptNeoX = decoder("gpt_neox", "GPTNeoXForCausalLM")
Opt = decoder("opt", "OPTForCausalLM")
Bloom = decoder("bloom", "BloomForCausalLM")
Llama = decoder("llama", "LlamaForCausalLM")
Mistral = decoder("mistral", "MistralForCausalLM", sliding_window=8)
Qwen2 = decoder("qwen2", "Qwen2ForCausalLM")
Qwen3 = decoder("qwen3", "Qwen3ForCausalLM")
Gemma2 = decoder("gemma2", "Gemma2ForCausalLM")
Phi3 = decoder("phi3", "Phi3ForCausalLM")
BigCode = decoder("gpt_bigcode", "GPTBigCodeForCausalLM")
Olmo2 = decoder("olmo2", "Olmo2ForCausalLM")
StarCoder2 = decoder("starcoder2", "Starcoder2ForCausalLM")
Mamba = decoder("mamba", "MambaForCausalLM", expand=2, time_step_rank=4)
Mixtral = decoder("mixtral", "MixtralForCausalLM", num_local_experts=2)


def MixtralBatched() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Mixtral with its mixture of experts built of torch's own operators."""
    model, inputs = Mixtral()
    model.set_experts_implementation("batched_mm")
    return model, inputs


T5 = pair("t5", "T5ForConditionalGeneration")
Bart = pair("bart", "BartForConditionalGeneration")
Marian = pair("marian", "MarianMTModel")
Pegasus = pair("pegasus", "PegasusForConditionalGeneration")
Vit = vision("vit", "ViTForImageClassification")
Deit = vision("deit", "DeiTModel")
Beit = vision("beit", "BeitForImageClassification", use_relative_position_bias=True)
Swin = vision("swin", "SwinForImageClassification", 64, image_size=64, patch_size=4, embed_dim=16,
              depths=[1, 1], num_heads=[2, 4], window_size=4)  # fmt: skip
SwinV2 = vision("swinv2", "Swinv2Model", 64, image_size=64, patch_size=4, embed_dim=16,
                depths=[1, 1], num_heads=[2, 4], window_size=4)  # fmt: skip
ConvNext = vision("convnext", "ConvNextForImageClassification", hidden_sizes=[16, 24, 32, 40],
                  depths=[1, 1, 1, 1], patch_size=4, num_stages=4)  # fmt: skip
ResNet = vision("resnet", "ResNetForImageClassification", 64, embedding_size=16,
                hidden_sizes=[16, 32], depths=[1, 1])  # fmt: skip
RegNet = vision("regnet", "RegNetModel", 64, embedding_size=16, hidden_sizes=[16, 32],
                depths=[1, 1], groups_width=8)  # fmt: skip
MobileNetV2 = vision("mobilenet_v2", "MobileNetV2ForImageClassification", 64, image_size=64,
                     depth_multiplier=0.25)  # fmt: skip
MobileVit = vision("mobilevit", "MobileViTModel", 64, image_size=64, hidden_sizes=[32, 48, 64],
                   neck_hidden_sizes=[16, 16, 24, 32, 40, 48, 64], patch_size=2)  # fmt: skip
EfficientNet = vision("efficientnet", "EfficientNetModel", 64, image_size=64, width_coefficient=0.25,
                      depth_coefficient=0.1, hidden_dim=320)  # fmt: skip
Segformer = vision("segformer", "SegformerForSemanticSegmentation", 64, hidden_sizes=[8, 16, 24, 32],
                   depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4],
                   decoder_hidden_size=16)  # fmt: skip
Dinov2 = vision("dinov2", "Dinov2Model")
Detr = vision("detr", "DetrForObjectDetection", 64, use_timm_backbone=False,
              use_pretrained_backbone=False, backbone=None, num_queries=8,
              backbone_config={"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32],
                               "depths": [1, 1], "out_features": ["stage2"]})  # fmt: skip
Yolos = vision("yolos", "YolosForObjectDetection", image_size=[32, 32], num_detection_tokens=5)
Dpt = vision("dpt", "DPTForDepthEstimation", num_hidden_layers=4, backbone_out_indices=[0, 1, 2, 3],
             neck_hidden_sizes=[8, 16, 24, 32], fusion_hidden_size=16, patch_size=8)  # fmt: skip
Wav2Vec2 = audio("wav2vec2", "Wav2Vec2ForCTC", conv_dim=[16, 16, 16], conv_kernel=[10, 3, 3],
                 conv_stride=[5, 2, 2], num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
                 num_feat_extract_layers=3)  # fmt: skip
Hubert = audio("hubert", "HubertModel", conv_dim=[16, 16, 16], conv_kernel=[10, 3, 3],
               conv_stride=[5, 2, 2], num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
               num_feat_extract_layers=3)  # fmt: skip
WavLm = audio("wavlm", "WavLMModel", conv_dim=[16, 16, 16], conv_kernel=[10, 3, 3],
              conv_stride=[5, 2, 2], num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
              num_feat_extract_layers=3)  # fmt: skip


def Whisper() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    of = config("whisper", use_cache=False, num_mel_bins=16, max_source_positions=20,
                max_target_positions=20, decoder_start_token_id=1)  # fmt: skip
    return made("WhisperForConditionalGeneration", of), {
        "input_features": torch.randn(2, 16, 40), "decoder_input_ids": tokens()[:, :5]
    }  # fmt: skip


def Ast() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    of = config("audio-spectrogram-transformer", max_length=32, num_mel_bins=32)
    return made("ASTForAudioClassification", of), {"input_values": torch.randn(2, 32, 32)}


def Clip() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    text = config("clip_text_model").to_dict()
    sight = config("clip_vision_model").to_dict()
    of = transformers.CLIPConfig(text_config=text, vision_config=sight, projection_dim=16)
    return made("CLIPModel", of), {
        "input_ids": tokens(), "pixel_values": picture(), "attention_mask": mask()
    }  # fmt: skip


def Siglip() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    text = config("siglip_text_model").to_dict()
    sight = config("siglip_vision_model").to_dict()
    of = transformers.SiglipConfig(text_config=text, vision_config=sight)
    return made("SiglipModel", of), {"input_ids": tokens(), "pixel_values": picture()}


def Vilt() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    return made("ViltModel", config("vilt")), {
        "input_ids": tokens(), "attention_mask": mask(), "pixel_values": picture(),
        "pixel_mask": torch.ones(2, 32, 32, dtype=torch.int64),
    }  # fmt: skip


def PatchTst() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    of = config("patchtst", num_input_channels=3, context_length=32, prediction_length=8,
                patch_length=8, patch_stride=8)  # fmt: skip
    return made("PatchTSTForPrediction", of), {"past_values": torch.randn(2, 32, 3)}
