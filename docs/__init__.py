"""The documentation: its pages, and what their generated pieces are made by."""
