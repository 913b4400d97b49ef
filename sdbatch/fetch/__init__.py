"""Reads sources and decodes them to pixels, with Pillow and ffmpeg and without torch.

    sources.py          URLs --> digests, at plan time; URL --> bytes and digest, in a worker
    kept_once.py        what many requests ask for is got once
    headers.py          what a source says of itself that a run would refuse, for `check`
    decode.py           a request's sources --> pixels by role, at the size asked for
    settings.py         what decoding is told: plain values
    bounded/            decode.py in child processes with bounds on memory and time

    pictures.py         bytes --> picture or mask --> fitted to a size
    picture_formats.py  first bytes --> format
    opening.py          header --> pixels of 8 bits; openers.py, jpeg.py, png.py, boxes.py: what each format needs
    colour.py           picture + ICC profile --> sRGB; profiles.py: numbers of ITU-T H.273 --> ICC profile

    clips.py            bytes --> frames, fitted to a number, a rate and a size
    containers.py       first bytes --> container; clip_header.py: what ffmpeg says of the stream
    clip_colour.py      header --> filters to progressive SDR of BT.709, or why it is refused

Sources may come from anybody: each step has bounds on bytes, pixels, frames and seconds.
"""
