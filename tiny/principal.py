"""Fit tiny-video's autoencoder in closed form: a latent holds the principal components of 8 x 8 pixels of 2 frames.

    clips --> covariance of cells --> LATENT_CHANNELS eigenvectors --> weights of the encoder
                                  --> least squares ---------------> weights the decoder begins its training with

Both ends of LTX's autoencoder pass a norm without weights and an activation before their last convolution. Here all
channels stand on a common offset, and some hold nothing else: what is left beside it passes nearly unbent.
"""

# N cells, K components, C channels of a patch, F frames, H and W pixels.

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor
from torch.nn.functional import silu

from tiny.video_shapes import FRAMES_PER_LATENT, LATENT_CHANNELS, PATCH_CHANNELS, PATCH_SIZE

_ENCODER_OFFSET: Final = 6.0
"""Laid under all components, in their deviations."""
_DECODER_SPARE: Final = 30.0
"""Of the decoder's channels that hold no component: beside them the norm divides by nearly the same everywhere."""
_PATCH_COMPONENTS: Final = 40
"""Of a patch's 48 values, passed from the decoder's upsampler to its end."""
_LOG_VARIANCE: Final = -12.0
_FLATTENED: Final = 0.5
"""Power of a component's deviation that is taken from it: 1 would make all alike, 0 leave fine detail tiny."""


@torch.no_grad()
def fit(vae: AutoencoderKLLTXVideo, clips_BCFHW: Tensor) -> None:
    """Set the autoencoder's weights, and the mean and deviation of the latents that LTX's pipelines read.

    Args:
        vae: Changed in place.
        clips_BCFHW: In -1..1; an odd number of frames.
    """
    cells_NC222 = _cells(_patches(clips_BCFHW))
    weight_K = _fit_encoder(vae, cells_NC222)
    latents_BKFHW = vae.encode(clips_BCFHW).latent_dist.mean
    vae.latents_mean.copy_(latents_BKFHW.mean(dim=(0, 2, 3, 4)))
    vae.latents_std.copy_(latents_BKFHW.std(dim=(0, 2, 3, 4)) / weight_K)
    _fit_decoder(vae, latents_BKFHW, clips_BCFHW)


def _fit_encoder(vae: AutoencoderKLLTXVideo, cells_NC222: Tensor) -> Tensor:
    """Pass every patch, project a cell on its components, undo the offset; return each component's weight."""
    encoder = vae.encoder
    first, second, last = (
        _emptied(each.conv) for each in (encoder.conv_in, encoder.down_blocks[0].downsamplers[0], encoder.conv_out)
    )
    first.weight[:, :, -1, 1, 1] = torch.eye(PATCH_CHANNELS)
    mean, deviations_K, directions = _principal(cells_NC222.flatten(1), LATENT_CHANNELS)
    whitened_KC222 = (directions / deviations_K).T.reshape(-1, *cells_NC222.shape[1:])
    second.weight[:LATENT_CHANNELS, :, 1:, 1:, 1:] = whitened_KC222
    second.bias.fill_(_ENCODER_OFFSET)
    second.bias[:LATENT_CHANNELS] -= whitened_KC222.flatten(1) @ mean
    _undo_offset(last, _ENCODER_OFFSET)
    last.bias[LATENT_CHANNELS] = _LOG_VARIANCE
    weight_K = deviations_K ** (1 - _FLATTENED)
    return weight_K / weight_K.square().mean().sqrt()


def _fit_decoder(vae: AutoencoderKLLTXVideo, latents_BKFHW: Tensor, clips_BCFHW: Tensor) -> None:
    """Pass every latent, make the patches' components of it, read pixels off; the layers between do nothing yet."""
    decoder = vae.decoder
    up = decoder.up_blocks[0]
    for layer in (*decoder.mid_block.resnets, *up.resnets):
        _emptied(layer.conv2.conv)
    first, second, last = (_emptied(each.conv) for each in (decoder.conv_in, up.upsamplers[0].conv, decoder.conv_out))
    first.weight[:LATENT_CHANNELS, :, -1, 1, 1] = torch.eye(LATENT_CHANNELS)
    first.bias[LATENT_CHANNELS:] = 1.0
    patches_BCFHW = _patches(clips_BCFHW)
    cells_NC222 = _cells(patches_BCFHW)
    mean, deviations, directions = _principal(cells_NC222.movedim(1, -1).flatten(0, 3), _PATCH_COMPONENTS)
    components_N222P = (cells_NC222.movedim(1, -1) - mean) @ directions / deviations
    solved = _solved(latents_BKFHW, components_N222P.movedim(-1, 1).flatten(1))
    making = second.weight.unflatten(0, (PATCH_CHANNELS, 8))  # views: the upsampler's outputs, by channel and place
    making[:_PATCH_COMPONENTS, :, :LATENT_CHANNELS, -1, 1, 1] = solved[:-1].T.reshape(_PATCH_COMPONENTS, 8, -1)
    standing = second.bias.unflatten(0, (PATCH_CHANNELS, 8))
    standing[:_PATCH_COMPONENTS] = solved[-1].reshape(-1, 8)
    standing[_PATCH_COMPONENTS:] = _DECODER_SPARE
    keep_apart(vae)
    heard: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    decoder(latents_BKFHW)
    hook.remove()
    read = _solved(heard[0][:, :_PATCH_COMPONENTS, 2:], patches_BCFHW.movedim(1, -1).flatten(0, 3))
    last.weight[:, :_PATCH_COMPONENTS, -1, 1, 1] = read[:-1].T
    last.bias.copy_(read[-1])


@torch.no_grad()
def keep_apart(vae: AutoencoderKLLTXVideo) -> None:
    """Let no layer of the decoder read the channels that only steady its norms: what they hold would drown the rest."""
    decoder = vae.decoder
    for convolution in (*(layer.conv1.conv for layer in decoder.up_blocks[0].resnets), decoder.conv_out.conv):
        convolution.weight[:, _PATCH_COMPONENTS:] = 0.0


def _solved(known_BKFHW: Tensor, wanted: Tensor) -> Tensor:
    """Return the matrix, its last row a constant, that comes closest to the wanted rows.

    By the normal equations in 64 bit: lstsq's default cuts off singular values below its rows' number times eps.
    """
    known = known_BKFHW.movedim(1, -1).flatten(0, 3).double()
    known = torch.cat([known, torch.ones(len(known), 1, dtype=torch.float64)], dim=1)
    solved: Tensor = torch.linalg.solve(known.T @ known, known.T @ wanted.double()).float()
    return solved


def _undo_offset(convolution: Any, offset: float) -> None:
    """Let a convolution pass what stood on an offset before norm and activation, less what the spare channels hold."""
    count = LATENT_CHANNELS
    one = torch.ones((), requires_grad=True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(silu(one), one)
    convolution.weight[:count, :count, -1, 1, 1] = torch.eye(count) * offset / slope
    spare = convolution.weight.shape[1] - count
    convolution.weight[:count, count:, -1, 1, 1] = -offset / slope / spare


def _emptied(convolution: Any) -> Any:
    convolution.weight.zero_()
    convolution.bias.zero_()
    return convolution


def _patches(clips_BCFHW: Tensor) -> Tensor:
    """Return what LTX's encoder makes of its input first: every patch a pixel of many channels."""
    batch, colours, frames, height, width = clips_BCFHW.shape
    size = PATCH_SIZE
    patches = clips_BCFHW.reshape(batch, colours, frames, height // size, size, width // size, size)
    return patches.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def _cells(patches_BCFHW: Tensor) -> Tensor:
    """Return every cell that becomes a latent, 2 frames of 2 x 2 patches; the first frame counts twice."""
    whole = torch.cat([patches_BCFHW[:, :, : FRAMES_PER_LATENT - 1], patches_BCFHW], dim=2)
    batch, channels, frames, height, width = whole.shape
    pairs = whole.reshape(batch, channels, frames // 2, 2, height // 2, 2, width // 2, 2)
    return pairs.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(0, 3)


def _principal(values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows' mean, their largest deviations, and the directions these lie in, as columns."""
    wide = values.double().numpy()
    variances, directions = np.linalg.eigh(np.cov(wide.T))
    chosen = np.argsort(variances)[::-1][:count]
    found = (wide.mean(axis=0), np.sqrt(variances[chosen]), directions[:, chosen])
    mean, deviations, columns = (torch.from_numpy(np.ascontiguousarray(each)).float() for each in found)
    return mean, deviations, columns
