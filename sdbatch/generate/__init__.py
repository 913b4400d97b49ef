"""unit -> arrays: the only room that knows torch, diffusers and transformers."""
