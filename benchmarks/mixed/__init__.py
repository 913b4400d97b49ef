"""A campaign as it comes: models, sizes, steps and guidance mixed, edits of few sources, repeated prompts, some clips.

`campaign` draws it, `models` makes its models, `careful` is what a careful user writes for it, each arm beside that.
"""
