"""Reads sources and decodes them to pixels, with Pillow and ffmpeg and without torch.

    sources.py    URLs --> digests, at plan time; URL --> bytes and digest, in a worker
    read_once.py  a file that many requests name is read once
    decode.py     a request's sources --> pixels by role, at the size asked for
    settings.py   what decoding is told: plain values
    bounded/      decode.py in child processes with bounds on memory and time
    pictures.py   bytes --> picture or mask --> fitted to a size
    clips.py      bytes --> frames, fitted to a number, a rate and a size

Sources may come from anybody: each step has bounds on bytes, pixels, frames and seconds.
"""
