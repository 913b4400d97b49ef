"""What people would use instead, each as they would write it; `main(manifest, model, output)` renders.

`probe.install()` is the one line that is not theirs: it notes when the pipeline runs. Outputs are `<id>.png`.
"""
