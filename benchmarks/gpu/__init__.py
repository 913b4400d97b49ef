"""The worker on a GPU, without Ray: true architectures, random weights; each part bounded, and written as it goes.

    python -m benchmarks.gpu [--only REGEX] [--limit-s 420] [--toy] [--out FOLDER]

    __main__  options --> parts in their order, each in a process of its own --> gpu.json, gpu.md
    bench     folder, clock and results of one part      bed      rows in, pixels out, through the product's renderer
    card, correct, exact, sdxl, campaign, flux, files    one file a part

A part that raises, or takes too long, costs itself. `--toy` runs the same on a CPU; its times mean nothing.
"""
